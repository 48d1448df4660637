"""One target in a process of its own, under libFuzzer: python -m fuzz.worker TARGET INPUTS SECONDS SEED FOLDER.

Writes FOLDER/result.json and ends after so many inputs or seconds, whichever comes first. libFuzzer itself ends the
process, without a result, at a single input that takes longer than ``HANG``.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["licquant"]):
    import licquant  # noqa: F401  (before anything else imports parts of it: what is imported already is not seen)

from fuzz import mutate
from fuzz.examine import Examiner
from fuzz.target import SEEDS, Target

HANG = 60  # seconds of one input
LARGEST = 1 << 16  # bytes of an input
_ROOM = 2 << 30  # bytes of address space beyond what the process has when it starts


def main(name: str, inputs: int, seconds: float, seed: int, folder: Path) -> None:
    target = find_target(name)
    examiner = Examiner(target.read, target.legal, folder / "findings")
    for path in target.seed_files():  # caches are filled before memory is limited and time is taken
        examiner(path.read_bytes())
    _limit_memory()
    start = time.monotonic()

    def one_input(data: bytes) -> None:
        examiner(data)
        elapsed = time.monotonic() - start
        if examiner.inputs >= inputs or elapsed >= seconds:
            record = {"target": name, "seconds": elapsed, **examiner.record()}
            (folder / "result.json").write_text(json.dumps(record))
            sys.stderr.flush()
            os._exit(0)  # libFuzzer has no other way to end where it is called from

    def other(data: bytes, size: int, number: int) -> bytes:
        return mutate.mutated(data, size, random.Random(number), atheris.Mutate, target.structured)

    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_len={LARGEST}",
        f"-timeout={HANG}",
        f"-seed={seed}",
        "-rss_limit_mb=0",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup(
        ["fuzz", *options, str(corpus), str(SEEDS / target.seeds)],
        one_input,
        custom_mutator=other,
    )
    atheris.Fuzz()


def find_target(name: str) -> Target:
    """Imports licquant so that atheris sees its branches; the training stack only for a target that needs it."""
    with atheris.instrument_imports(include=["licquant"]):
        from fuzz import codec_targets

        if name in codec_targets.TARGETS:
            return codec_targets.TARGETS[name]
        from fuzz import toolkit_targets

        return toolkit_targets.TARGETS[name]


def _limit_memory() -> None:
    """An allocation that is out of all proportion raises ``MemoryError``, which no parser may."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
