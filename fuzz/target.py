"""What is fuzzed: a function of the bytes of a file each, and the error that it may raise."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import Mutation
from licquant.errors import LicquantError

SEEDS = Path(__file__).parent / "seeds"
_IN_MEMORY = Path("/dev/shm")  # a file for every input would otherwise take longer than reading it


@dataclass(frozen=True)
class Target:
    """seeds: name of a folder of committed inputs;  read: of the bytes, and use of what was read as the commands do:
    what is accepted must not fail later;  legal: what damaged bytes may raise;  structured: a mutation that gets
    further than a blind one, for half of the inputs
    """

    seeds: str
    read: Callable[[bytes], object]
    legal: tuple[type[LicquantError], ...]
    structured: Mutation

    def seed_files(self) -> list[Path]:
        return sorted((SEEDS / self.seeds).iterdir())


def file_of(name: str, data: bytes) -> Path:
    """A temporary file of that name."""
    path = Path(_folder().name) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="licquant-fuzz-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
