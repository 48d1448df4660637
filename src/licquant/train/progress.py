"""The progress bar, and the wish to stop: Ctrl-C, a termination signal, or the end of the given time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from licquant.terminal import bars
from licquant.train.settings import BaseRecipe

if TYPE_CHECKING:  # as in ``terminal.py``: whoever decodes an image does not wait for Rich
    from rich.console import Console

COMPLETE, TIME_LIMIT, INTERRUPTED = "complete", "time limit", "interrupted"


class Clock:
    """Seconds since the start, and why to stop: ``stop_reason`` is None while nobody wants to."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.start = time.monotonic()
        self.limit = None if max_minutes is None else 60 * max_minutes
        self.interrupted = False

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.start

    def stop_reason(self) -> str | None:
        """``INTERRUPTED``, ``TIME_LIMIT`` or None."""
        if self.interrupted:
            return INTERRUPTED
        return TIME_LIMIT if self.limit is not None and self.seconds >= self.limit else None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, a first SIGINT or SIGTERM asks for a stop after the present step; a second one acts."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask_to_stop(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, ask_to_stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def training_bar(console: Console, recipe: BaseRecipe, step: int, *, shown: bool) -> Iterator[Any]:
    """A progress bar; yields a function of (step, log row's text) that moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    if not shown:
        yield lambda step, figures=None: None
        return
    columns = (
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with bars(console, *columns, kept=False) as progress:
        task = progress.add_task(f"{recipe.model} λ={recipe.lmbda:g}", total=recipe.steps, completed=step, figures="")

        def move(step: int, figures: str | None = None) -> None:
            fields: Any = {} if figures is None else {"figures": figures}
            progress.update(task, completed=step, **fields)

        yield move


@contextmanager
def decoding_bar(console: Console) -> Iterator[Any]:
    """A progress bar for decoding the images once; yields a function of (done, total)."""
    from rich.progress import Progress

    with bars(console, *Progress.get_default_columns(), kept=False) as progress:
        task = progress.add_task("decoding the images, once", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
