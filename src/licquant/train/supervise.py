"""Long work in a process of its own, which a crash of a library may end: it is then started again, once.

Python cannot catch a segmentation fault or what malloc aborts with. The work must be able to go on from what it saved.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from licquant.errors import LicquantError, TrainingError

_Result = TypeVar("_Result")

RESTARTS = 1
# What a fault of compiled code ends a process with; all else (a full memory, kill -9) would only happen again.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL} | (
    {signal.SIGBUS} if hasattr(signal, "SIGBUS") else set()
)


def survive(
    work: Callable[..., _Result], *arguments: Any, on_crash: Callable[[str], object] = lambda _: None
) -> tuple[_Result, int]:
    """(``work(*arguments)``, how often it was started again), in a fresh process; all of it must be picklable.

    Signals that ask for an end are handed on. ``on_crash`` gets the name of the signal that a library crashed with,
    before each restart. Raises the ``LicquantError`` that the work raises, ``TrainingError`` if its process ends
    without a result.
    """
    for restarts in range(RESTARTS + 1):
        outcome, ended = _once(work, arguments)
        if isinstance(outcome, LicquantError):
            raise outcome
        if outcome is not None:
            return outcome[0], restarts
        if ended not in _CRASHES:
            break
        if restarts < RESTARTS:
            on_crash(signal.Signals(ended).name)
    how = signal.Signals(ended).name if ended > 0 else "an error"
    again = f", the second time after {RESTARTS} restart" if ended in _CRASHES else ""
    raise TrainingError(f"the training's process ended with {how}{again}; what was saved is kept, continue it")


def _once(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """((the result,) or the error or None, the signal that ended the process or 0)."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not exist in it
    here, there = context.Pipe(duplex=False)
    # What the work needs is imported when it is unpickled: by then the child keeps the warnings that its parent keeps.
    given = pickle.dumps((work, arguments))
    child = context.Process(target=_report, args=(there, list(warnings.filters), given))
    with _handing_on(child) as handed:
        child.start()
        there.close()
        try:
            outcome = here.recv()
        except EOFError:
            outcome = None
        child.join()
    if outcome is None and handed:
        raise KeyboardInterrupt  # asked to end before there was anything to save
    return outcome, -min(child.exitcode or 0, 0)


def _report(there: Connection, filters: list[Any], given: bytes) -> None:
    """In the child: do the work that is ``given``, pickled, and send what comes of it."""
    warnings.filters[:] = filters  # type: ignore[index]  # a list, whatever the stubs say
    # The parent hands on what is sent to its whole group, as by Ctrl-C; arriving twice it would mean: at once.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        try:
            work, arguments = pickle.loads(given)
            there.send((work(*arguments),))
        except LicquantError as error:
            there.send(error)


def _end_with_parent() -> None:
    """A child whose parent was killed ends as abruptly: going on, it would meet the run that is started next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _handing_on(child: SpawnProcess) -> Iterator[list[int]]:
    """Within it SIGINT and SIGTERM go to the child; yields those that came."""
    handed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield handed  # signals reach the main thread alone
        return

    def hand_on(number: int, frame: object) -> None:
        handed.append(number)
        if child.pid is not None:
            os.kill(child.pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield handed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
