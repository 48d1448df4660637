"""Numbers on the command line: the range that each option takes, declared with the option."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import typer

from licquant.config import MAX_BITS, MAX_LMBDA, MIN_BITS
from licquant.errors import LicquantError

MANY = 10**9  # of whatever is counted, more than anybody can wait for
MAX_THREADS = 1024
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """What an option takes: ``whole`` numbers or any finite ones from low to high, low itself only if not ``above``."""

    option: str
    low: float
    high: float
    whole: bool = True
    above: bool = False

    @property
    def __name__(self) -> str:
        """What the help shows in place of a value."""
        if self.above or self.high >= MANY:
            return f"{'>' if self.above else '>='}{self.low:g}"
        return f"{self.low:g}..{self.high:g}"

    def __call__(self, value: Any) -> float:
        """The number that was given; ``LicquantError``, one line that names the option, for any other."""
        try:
            number = int(value) if self.whole else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not self.low <= number <= self.high or (self.above and number == self.low):
            kind = "a whole number" if self.whole else "a finite number"
            bound = f"{'above' if self.above else 'from'} {self.low:g}"
            bound += f" to {self.high:g}" if self.high < MANY else ""
            raise LicquantError(f"{self.option} {str(value)[:40]}: must be {kind} {bound}")
        return number


def whole(option: str, low: int, high: int, help_: str, *names: str, **more: Any) -> Any:
    """An option for whole numbers; names: others of the same option."""
    return typer.Option(option, *names, parser=Range(option, low, high), help=help_, **more)


def positive(option: str, help_: str, **more: Any) -> Any:
    """An option for finite numbers above 0."""
    return typer.Option(option, parser=Range(option, 0, MAX_LMBDA, whole=False, above=True), help=help_, **more)


def not_negative(option: str, help_: str, **more: Any) -> Any:
    """An option for finite numbers from 0 on."""
    return typer.Option(option, parser=Range(option, 0, MAX_LMBDA, whole=False), help=help_, **more)


def bits(option: str, help_: str) -> Any:
    """An option for a width."""
    return whole(option, MIN_BITS, MAX_BITS, help_)


def average_bits(option: str, help_: str) -> Any:
    """An option for an average of widths."""
    return typer.Option(option, parser=Range(option, MIN_BITS, MAX_BITS, whole=False), help=help_)


def count(option: str, help_: str, low: int = 1, **more: Any) -> Any:
    """An option for how many there are of something."""
    return whole(option, low, MANY, help_, **more)
