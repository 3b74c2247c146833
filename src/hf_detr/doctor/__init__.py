"""The doctor reads a data set once, says what is wrong with it, and recommends how to train on it."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .diagnosis import Diagnosis, examine
    from .findings import Finding, Place, Severity
    from .report import check_output, terminal_report, write_report

__all__ = ["Diagnosis", "Finding", "Place", "Severity", "check_output", "examine", "terminal_report", "write_report"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Diagnosis": ".diagnosis",
        "Finding": ".findings",
        "Place": ".findings",
        "Severity": ".findings",
        "check_output": ".report",
        "examine": ".diagnosis",
        "terminal_report": ".report",
        "write_report": ".report",
    },
)
