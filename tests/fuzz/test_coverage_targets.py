"""The fuzzing itself, without libFuzzer: targets accept their seeds, mutations reach what lies behind the checksums,
and what is illegal is seen."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import codec_targets, mutate, run, toolkit_targets
from fuzz.examine import Examiner
from fuzz.run import SHARES, run_target
from fuzz.target import Target
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import Bitstream
from licquant.errors import ArtifactError, BitstreamError, ModelError
from licquant.models.small import from_small

TARGETS = {**codec_targets.TARGETS, **toolkit_targets.TARGETS}
INPUTS = 150
LITTLE = 64 << 20  # bytes


def raw(data: bytes, size: int) -> bytes:
    """A stand-in for libFuzzer's mutation: some bytes others."""
    rng = random.Random(data)
    changed = bytearray(data or b"?")
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[:size])


def mutations(target: Target) -> list[bytes]:
    seeds = [path.read_bytes() for path in target.seed_files()]
    generators = map(random.Random, range(INPUTS))
    return [mutate.mutated(rng.choice(seeds), 1 << 16, rng, raw, target.structured) for rng in generators]


def test_every_target_has_a_share() -> None:
    assert sorted(TARGETS) == sorted(SHARES)
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_seeds_raise_declared_errors_only(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    examiner = Examiner(target.read, target.legal, tmp_path)
    seeds = [path.read_bytes() for path in target.seed_files()]
    for data in seeds:
        examiner(data)
    assert examiner.accepted > 0
    for data in mutations(target):
        examiner(data)
    assert examiner.record()["findings"] == []
    assert examiner.inputs == len(seeds) + INPUTS


@pytest.mark.parametrize(
    ("name", "parse", "checksum"),
    [
        ("container", Bitstream.from_bytes, "checksum"),
        ("artifact", Artifact.from_bytes, "checksum"),
        ("checkpoint", from_small, "checksum"),
    ],
)
def test_half_of_the_mutations_pass_the_checksum(name: str, parse: Callable[[bytes], object], checksum: str) -> None:
    passed = 0
    for data in mutations(TARGETS[name]):
        try:
            parse(data)
        except (ArtifactError, BitstreamError, ModelError) as error:
            passed += not any(word in str(error) for word in (checksum, "truncated", "not a", "too long a", "version"))
        else:
            passed += 1
    assert passed > 0.3 * INPUTS


def _too_much(data: bytes) -> None:
    assert bytearray(b"x" * (2 * LITTLE))[-1]


def _raise(error: Exception) -> None:
    raise error


def test_a_target_that_does_not_end_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper, started = [sys.executable, "-c", "import time; time.sleep(600)"], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **settings: started(sleeper, **settings))
    monkeypatch.setattr(run, "_AROUND", 0.1)
    record = run_target("container", 10**12, 0.1, 1, tmp_path / "container")
    assert [found["kind"] for found in record["findings"]] == ["died without an end"]
    assert record["seconds"] < 60


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda data: data[3], "IndexError at "),
        (lambda data: _raise(ArtifactError("one line\nand another")), "a message of no or several lines"),
        (lambda data: _raise(ArtifactError("\ud800")), "a message that cannot be printed"),
        (lambda data: _raise(BitstreamError("of another kind")), "BitstreamError at "),
        (_too_much, "too much memory"),
        (lambda data: sum(range(30_000_000)), "too slow"),
    ],
)
def test_what_is_illegal_is_seen_and_kept(read: Callable[[bytes], object], kind: str, tmp_path: Path) -> None:
    examiner = Examiner(read, (ArtifactError,), tmp_path, max_seconds=0.2, max_memory=LITTLE)
    examiner(b"ab")
    examiner(b"ab")
    found = next(found for found in examiner.record()["findings"] if found["kind"].startswith(kind))
    assert (tmp_path / found["input"]).read_bytes() == b"ab"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits and sizes are read as Linux gives them")
def test_a_target_runs_under_libfuzzer(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install 'licquant[fuzz]'")
    record = run_target("container", 3000, 60.0, 1, tmp_path / "container")
    assert record["inputs"] == 3000
    assert record["edges"] > 10
    assert record["findings"] == []
