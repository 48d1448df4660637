"""What a start keeps for the next one: the same results, found where nothing has changed, made again where it has."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from licquant import cache, ready
from licquant.codec.codec import Codec, load
from licquant.codec.files import blobs
from licquant.codec.files.plain_weights import plain_to_weights, weights_to_plain
from licquant.program import openvino_engine
from licquant.program.arithmetic import weight_range, weight_type
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Part
from licquant.program.saturation import in_floats
from licquant.ready import Ready


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("ready-*.bin"))


@pytest.fixture
def coded(codec: Codec, image: np.ndarray) -> bytes:
    return codec.encode(image)


@pytest.fixture
def filled(artifact_path: Path, image: np.ndarray, coded: bytes, tmp_path: Path) -> Path:
    """A cache in which an encode and a decode have left what they made."""
    codec = load(artifact_path, threads=1, cache=tmp_path)
    assert codec.encode(image) == coded
    codec.decode(coded)
    assert len(kept(tmp_path)) == 4  # weights, g_a, h_a, g_s
    return tmp_path


def forbid(patch: pytest.MonkeyPatch, *, weights: bool = True, compiling: bool = True) -> None:
    def made(*_: object) -> None:
        raise AssertionError("made again")

    if weights:
        patch.setattr(blobs, "unpack_integers", made)
    if compiling:
        patch.setattr(OpenVinoEngine, "_compile", made)


def check(codec: Codec, image: np.ndarray, coded: bytes, pixels: np.ndarray) -> None:
    assert codec.encode(image) == coded
    assert np.array_equal(codec.decode(coded), pixels)


def test_the_next_start_makes_nothing_and_gives_the_same(
    artifact_path: Path, codec: Codec, image: np.ndarray, coded: bytes, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = codec.decode(coded)
    forbid(monkeypatch)
    check(load(artifact_path, threads=1, cache=filled), image, coded, pixels)


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_what_is_damaged_is_made_again(
    artifact_path: Path, codec: Codec, image: np.ndarray, coded: bytes, filled: Path, damage: bytes | None
) -> None:
    for path in kept(filled):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage is None else damage)
    check(load(artifact_path, threads=1, cache=filled), image, coded, codec.decode(coded))
    made = list(map(Path.read_bytes, kept(filled)))
    assert len(made) == 4
    assert all(hashlib.sha256(data[32:]).digest() == data[:32] for data in made)


def test_a_sound_file_that_is_no_model_is_as_good_as_none(
    artifact_path: Path, codec: Codec, image: np.ndarray, coded: bytes, filled: Path
) -> None:
    weights = Ready(filled, (artifact_path.read_bytes()[-32:].hex(),)).read()
    compiled = [path for path in kept(filled) if path.read_bytes()[32:] != weights]
    assert len(compiled) == 3
    for path in compiled:
        path.write_bytes(hashlib.sha256(b"no model").digest() + b"no model")
    check(load(artifact_path, threads=1, cache=filled), image, coded, codec.decode(coded))


def test_other_kernels_are_tested_again(
    artifact_path: Path, coded: bytes, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_SOMETHING", "1")
    forbid(monkeypatch, weights=False)
    with pytest.raises(AssertionError, match="made again"):
        load(artifact_path, threads=1, cache=filled).decode(coded)


def test_a_self_test_that_finds_something_else_is_believed(
    artifact_path: Path, coded: bytes, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of the same name, too: what was compiled for kernels that sum rightly is not used by others."""

    class Saturating:
        @staticmethod
        def fit(part: Part) -> tuple[Part, Part, bool]:
            layers = {op.name for op in part.operations if hasattr(op, "weight_bits")}
            return in_floats(part, layers), part, True  # as no machine does that has INT8 kernels

    monkeypatch.setattr(openvino_engine, "machine", lambda device: Saturating)
    forbid(monkeypatch, weights=False)
    with pytest.raises(AssertionError, match="made again"):
        load(artifact_path, threads=1, cache=filled).decode(coded)


def test_other_code_finds_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch, artifact_path: Path) -> None:
    monkeypatch.setattr(cache, "packages_version", lambda packages: "0" * 12)
    forbid(monkeypatch, compiling=False)
    with pytest.raises(AssertionError, match="made again"):
        load(artifact_path, cache=filled)


def test_where_nothing_can_be_kept_nothing_is(
    artifact_path: Path, codec: Codec, image: np.ndarray, coded: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    check(load(artifact_path, threads=1, cache=file), image, coded, codec.decode(coded))
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(given: Path | None = None) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(ready, "cache_folder", none)
    assert ready.usual_folder() is None
    assert Ready(None, ("x",)).read() is None


def test_all_together_are_bounded_and_the_longest_unread_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "_MOST_BYTES", 300)
    entries = [Ready(tmp_path, (number,)) for number in range(3)]
    for age, entry in enumerate(entries[:2]):
        entry.write(bytes(100))
        os.utime(max(kept(tmp_path), key=lambda path: path.stat().st_mtime), (age + 1, age + 1))
    assert entries[0].read() is not None  # now the newer one
    entries[2].write(bytes(100))
    assert [entry.read() is not None for entry in entries] == [True, False, True]
    entries[1].write(bytes(400))
    assert entries[1].read() is None


def test_weights_of_all_widths_come_back() -> None:
    rng = np.random.default_rng(0)
    weights = {
        (index, (3, index + 1), bits): rng.integers(
            *weight_range(bits), (3, index + 1), weight_type(bits), endpoint=True
        )
        for index, bits in enumerate(range(2, 17))
    }
    found = plain_to_weights(memoryview(weights_to_plain(weights)))
    assert list(found) == list(weights)
    assert all(found[key].dtype == weights[key].dtype and np.array_equal(found[key], weights[key]) for key in weights)


def test_two_processes_may_start_at_once(artifact_path: Path, coded: bytes, codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "x.lic").write_bytes(coded)
    environment = {**os.environ, "LICQUANT_CACHE": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "licquant", "decode", "x.lic", "-m", artifact_path, "-o", f"{number}.ppm"],
            cwd=tmp_path,
            env=environment,
        )
        for number in range(3)
    ]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    pixels = codec.decode(coded)
    for number in range(3):
        assert (tmp_path / f"{number}.ppm").read_bytes().endswith(np.ascontiguousarray(pixels).tobytes())
    assert len(kept(tmp_path / "cache")) == 2
    assert all(path.name.startswith("ready-") for path in (tmp_path / "cache").iterdir())
