"""The doctor: reads a data set once, says what is wrong with it, and recommends how to train on it."""

from .diagnosis import Diagnosis, examine
from .findings import Finding, Place, Severity
from .report import check_output, terminal_report, write_report

__all__ = ["Diagnosis", "Finding", "Place", "Severity", "check_output", "examine", "terminal_report", "write_report"]
