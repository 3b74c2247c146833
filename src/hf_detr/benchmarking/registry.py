"""Finds suites by name, and the comparisons that they make.

A suite is a module with `comparisons(options) -> Iterator[Comparison]`. A program is a command line that runs suites.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contest import Comparison
    from .options import BenchOptions


@dataclass(frozen=True)
class Suite:
    """A set of comparisons.

    Attributes:
        module: the importable name of the module that makes the comparisons.
        description: one sentence that says what the suite measures.
    """

    module: str
    description: str

    def comparisons(self, options: "BenchOptions") -> Iterator["Comparison"]:
        """Return the comparisons of the suite. Nothing is built before it is measured."""
        return import_module(self.module).comparisons(options)

    def find(self, name: str, options: "BenchOptions") -> "Comparison":
        """Return the comparison with a name."""
        return next(comparison for comparison in self.comparisons(options) if comparison.name == name)


@dataclass(frozen=True)
class Program:
    """A command line that runs suites.

    Attributes:
        name: the words by which a user calls it, such as "hf-detr bench".
        words: the words that follow the Python interpreter in the same call.
        suites: the suites by name.
    """

    name: str
    words: tuple[str, ...]
    suites: Mapping[str, Suite]

    def suite(self, name: str) -> Suite:
        """Return the suite with a name.

        Raises:
            ValueError: this program has no such suite.
        """
        if name not in self.suites:
            raise ValueError(f"there is no suite {name!r}; choose from {', '.join(self.suites)}")
        return self.suites[name]
