"""What commands print: text as it is, tables as wide as they need, and none of other libraries' remarks.

Names of files are their owners': nothing in them is markup or the name of an emoji, no line is broken, control
characters are told by escapes. Results go to standard output; progress, remarks and errors to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:  # Rich takes as long to import as decoding an image, and most commands say a line or two
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table

SECONDS_BETWEEN_LINES = 60.0  # of progress, in a log

# All but the new line; those of C1 too, which some terminals obey, and those that turn the direction of writing.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(10), *range(11, 32), *range(127, 160))}
_TURNS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROL |= {code: f"\\u{code:04x}" for code in _TURNS}


def printable(text: str) -> str:
    """The text without what a terminal would obey instead of show."""
    return text.translate(_CONTROL)


def on_one_line(name: object) -> str:
    """A name, new lines in it as escapes: in a list of lines, each is a file's."""
    return str(name).replace("\n", "\\x0a")


class _StandardError:
    """Standard error, wherever it leads by then. No work is lost for a remark that a full disk does not take."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


_ERRORS = cast("TextIO", _StandardError())


def drop_what_is_lost() -> bool:
    """To be called last: whether standard output takes no more. What waits for it or for standard error on a full disk
    is dropped: Python would fail with it at exit, whatever the status is."""
    lost = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            print(end="", file=stream, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            lost.append(number)
    return 1 in lost


def say(text: str) -> None:
    """A result, on standard output."""
    sys.stdout.write(printable(text) + "\n")


def remark(text: str) -> None:
    """A line on standard error, new lines in it (of a name, for instance) made blanks."""
    _ERRORS.write(printable(f"licquant: {' '.join(text.split())}") + "\n")


class Remarks(logging.Handler):
    """The library's log as remarks, while a command runs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record as a remark."""
        remark(record.getMessage())


def note(text: str) -> None:
    """A line of progress, on standard error."""
    _ERRORS.write(printable(text) + "\n")


def plain_console(*, stderr: bool = False) -> Console:
    """Rich's, but text is printed as it is."""
    from rich.console import Console

    return Console(file=_ERRORS if stderr else None, markup=False, emoji=False, highlight=False)


def show_table(table: Table, least: int = 80) -> None:
    """On standard output, as wide as it has to be and at least so wide: a table that is cut has lost figures."""
    plain = plain_console()
    plain.width = 10_000
    plain.width = max(least, plain.measure(table).maximum)
    plain.print(table)


def progress_bars() -> Progress:
    """Bars on standard error for whatever long work goes on; where no terminal draws them, a line each minute, too."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}", markup=False),
        TimeElapsedColumn(),
    )
    return bars(plain_console(stderr=True), *columns, kept=True)


def bars(console: Console, *columns: ProgressColumn, kept: bool) -> Progress:
    """Bars of these columns; in a log, a line each minute. kept: they stay when all is done."""
    from rich.progress import Progress, TaskID

    class Lines(Progress):
        """Rich draws bars in a log only when all is done, which may be hours later."""

        told = time.monotonic()

        def update(self, task_id: TaskID, **changes: Any) -> None:
            super().update(task_id, **changes)
            self._tell(task_id)

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            self._tell(task_id)

        def _tell(self, task_id: TaskID) -> None:
            if time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
                self.told = time.monotonic()
                task = next(task for task in self.tasks if task.id == task_id)
                total = "" if task.total is None else f"/{task.total:g}"
                figures = f" {task.fields['figures']}" if task.fields.get("figures") else ""
                line = printable(f"{task.description} {task.completed:g}{total}{figures}")
                console.print(line, markup=False, highlight=False, soft_wrap=True)

    # Standard output stays what it is: Rich would lead it to the bars' console.
    streams: Any = {"redirect_stdout": False, "redirect_stderr": False}
    if console.is_terminal:
        return Progress(*columns, console=console, transient=not kept, **streams)
    return Lines(*columns, console=console, disable=not kept, **streams)


def quiet_libraries() -> None:
    """No warnings but licquant's own, for the rest of the process; whoever asked Python for them (-W) gets them."""
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!licquant\b)")
