"""One input against one target: what is illegal is described, everything else is counted."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licquant.errors import LicquantError

MAX_SECONDS = 2.0  # of processor time for an input
MAX_MEMORY = 256 << 20  # bytes that one input may add to the largest size that the process ever had
_KEPT = 20  # findings of different kinds


@dataclass
class Examiner:
    """read: what is fuzzed; legal: the errors it may raise; folder: where inputs that found something are kept."""

    read: Callable[[bytes], object]
    legal: tuple[type[LicquantError], ...]
    folder: Path
    max_seconds: float = MAX_SECONDS
    max_memory: int = MAX_MEMORY
    inputs: int = 0
    accepted: int = 0
    slowest: tuple[float, str] = (0.0, "")
    largest: int = 0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        before, start = _peak_bytes(), time.process_time()
        problem = self._problem(data)
        seconds, grown = time.process_time() - start, _peak_bytes() - before
        self.slowest = max(self.slowest, (seconds, hashlib.sha256(data).hexdigest()[:12]))
        self.largest = max(self.largest, len(data))
        if problem is not None:
            self._keep(*problem, data)
        if seconds > self.max_seconds:
            self._keep("too slow", f"{seconds:.1f} s", data)
        if grown > self.max_memory:
            self._keep("too much memory", f"{grown / 2**20:.0f} MiB more", data)

    def record(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "accepted": self.accepted,
            "slowest_seconds": self.slowest[0],
            "slowest_input": self.slowest[1],
            "largest_input_bytes": self.largest,
            "peak_bytes": _peak_bytes(),
            "findings": list(self.findings.values()),
        }

    def _problem(self, data: bytes) -> tuple[str, str] | None:
        """(kind, detail) of what is illegal."""
        try:
            self.read(data)
        except self.legal as error:
            return _message_problem(str(error))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "licquant" in frame.filename] or list(frames)
            place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
            return f"{type(error).__name__} at {place}", str(error)[:200]
        self.accepted += 1
        return None

    def _keep(self, kind: str, detail: str, data: bytes) -> None:
        """The first input of each kind; of later ones only how many."""
        if kind in self.findings:
            self.findings[kind]["count"] += 1
        elif len(self.findings) < _KEPT:
            name = f"{hashlib.sha256(data).hexdigest()[:12]}.bin"
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
            self.findings[kind] = {"kind": kind, "detail": detail, "input": name, "count": 1}


def _message_problem(message: str) -> tuple[str, str] | None:
    """An error is one line that any terminal can print."""
    if not message or "\n" in message or "\r" in message:
        return "a message of no or several lines", ascii(message)[:200]
    try:
        message.encode()
    except UnicodeEncodeError:
        return "a message that cannot be printed", ascii(message)[:200]
    return None


def _peak_bytes() -> int:
    """The largest resident size so far. Not getrusage's: that begins with the size of the parent process."""
    status = Path("/proc/self/status").read_bytes()
    return 1024 * int(status.partition(b"VmHWM:")[2].split(None, 1)[0])
