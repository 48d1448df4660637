"""Models whose headers were altered, with checksums that fit: one clear line, bounded memory, never anything else."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from licquant.codec.codec import Codec
from licquant.codec.files import artifact as artifact_module
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.blobs import allowed_elements
from licquant.config import Plan
from licquant.errors import ArtifactError, LoweringError, PlanError
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Rescaling
from licquant.program.part import INPUT, Part
from tests.fuzz.altered_models import (
    EVERY_OPERATION,
    FEW_SEEDS,
    NUMBERS,
    OTHERS,
    SEEDS,
    alterations,
    at,
    coded,
    is_one_line,
    mixtures,
    opened,
    places,
    rebuilt,
    seed,
    survey,
    survives,
)

ROOT = Path(__file__).parents[2]
_MEGABYTES = 400  # beside the process as it is: 2^21 elements and a small image are far below it


def altered(name: str, change: Callable[[Any], None]) -> bytes:
    """A seed with a change of its header."""
    header, blobs = opened(seed(name))
    change(header)
    return rebuilt(header, blobs)


def operation(header: Any, name: str) -> Any:
    return next(op for part in header["program"] for op in part["operations"] if op["name"] == name)


@pytest.mark.parametrize("name", SEEDS)
def test_the_rebuilt_seed_is_accepted(name):
    assert survives(altered(name, lambda header: None), coded(name))


@pytest.mark.parametrize("alter", [alterations, mixtures])
@pytest.mark.parametrize("name", FEW_SEEDS)
def test_a_sample_of_alterations(name, alter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accepted, wrong = survey(name, alter, 15, draw=7)
    assert not wrong
    assert accepted < 15


def in_own_process(name: str, count: int, megabytes: int, engine: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.altered_models", name, str(count), str(megabytes), "1", engine]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by what /proc says")
@pytest.mark.parametrize(("engine", "megabytes"), [("exact", _MEGABYTES), ("openvino", 8 * _MEGABYTES)])
@pytest.mark.parametrize("name", SEEDS)
def test_many_alterations_in_little_memory(name, engine, megabytes):
    in_own_process(name, 1200 if engine == "exact" else 160, megabytes, engine)


# --- one of every kind, by name -----------------------------------------------------------------------------


def _constant(value: Any, count: int) -> dict[str, Any]:
    return {"value": value, "shape": [count]}


def _everywhere(name: str, key: str, values: np.ndarray) -> bytes:
    """A seed in which all elements of every tensor of that name have one value, stored as it is."""
    header, blobs = opened(seed(name))
    found = [path for path in places(header) if path[-1] == key and "shape" in _record(header, path)]
    assert found
    for path in found:
        (count,) = at(header, path)["shape"]
        data = values.repeat(count).tobytes()
        at(header, path[:-1])[key] = {"blob": len(header["blobs"]), "dtype": values.dtype.str, "shape": [count]}
        header["blobs"].append(len(data))
        blobs += data
    return rebuilt(header, blobs)


def _record(header: Any, path: tuple[Any, ...]) -> Any:
    found = at(header, path)
    return found if isinstance(found, dict) else {}


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, -(2**62), 2**46 + 1])
@pytest.mark.parametrize(
    "key", ["bias", "beta", "positive", "negative", "shift", "multiplier", "medians", "thresholds"]
)
def test_no_range_is_checked_by_what_wraps_around(key, value):
    with pytest.raises(ArtifactError, match=r"range|outside|do not fit") as caught:
        Artifact.from_bytes(_everywhere(EVERY_OPERATION, key, np.array([value])))
    assert is_one_line(caught.value)


def test_the_bound_of_a_sum_beyond_64_bits_is_refused():
    """Products of 2^45 each, 2^19 of them: 2^64 in all, which is less than nothing in 64 bits."""
    channels = 1 << 7
    weight = np.full((1, channels, 64, 64), 1 << 14, dtype=np.int32)
    one = np.ones(1, dtype=np.int64)
    op = Convolution("c", (INPUT,), Grid.fixed_point(1, 8), weight, 16, 0 * one, 1, 0, 1, Rescaling(one, one, one))
    wide = Grid(32, np.ones(channels), np.zeros(channels, dtype=np.int64))
    assert op.bound([wide]) == (channels << 12) * (1 << 14) * (2**31 - 1)
    with pytest.raises(LoweringError, match="its accumulator needs"):
        Part("p", wide, (op,))


@pytest.mark.parametrize("scale", [4.6e18, 0, -1.0, 1e-38, 3e38, float("nan"), float("inf")])
def test_scales_have_a_range(scale):
    with pytest.raises(ArtifactError, match="a scale that is not a number from"):
        Artifact.from_bytes(_everywhere("factorized", "scale", np.array([scale], dtype="<f4")))


@pytest.mark.parametrize("shape", [[], [1, 6], [6, 1], [1 << 27], [1 << 62], [10**30], [-1], [0], [6.0], [True]])
@pytest.mark.parametrize("stored", [{"value": 0}, {"blob": 0, "dtype": "<i1"}])
def test_vectors_are_vectors(shape, stored):
    def change(header: Any) -> None:
        header["program"][0]["operations"][0]["bias"] = {**stored, "shape": shape}

    with pytest.raises(ArtifactError):
        Artifact.from_bytes(altered("factorized", change))


def test_a_file_claims_no_more_than_its_size_allows():
    """Many constants, each of a legal size, in operations that are never reached."""

    def change(header: Any) -> None:
        op = {
            **operation(header, "g_s.input"),
            "grid": {"bits": 8} | {k: _constant(1, 1 << 16) for k in ("scale", "zero_point")},
        }
        header["program"][1]["operations"] = [op] * 200

    data = altered("factorized", change)
    assert allowed_elements(len(data)) < 200 * (1 << 17)
    with pytest.raises(ArtifactError, match="far more elements"):
        Artifact.from_bytes(data)


def test_what_could_not_be_read_again_is_not_written(monkeypatch):
    whole = Artifact.from_bytes(seed("factorized"))
    monkeypatch.setattr(artifact_module, "allowed_elements", lambda size: 1000)
    with pytest.raises(ArtifactError, match="use more bits"):
        whole.to_bytes()


@pytest.mark.parametrize("part", ["g_a", "g_s"])
@pytest.mark.parametrize(("key", "value"), [("bits", 4), ("bits", 16), ("zero_point", _constant(1, 3))])
def test_a_program_reads_and_writes_pixels(part, key, value):
    def change(header: Any) -> None:
        record = next(record for record in header["program"] if record["name"] == part)
        grid = record["input_grid"] if part == "g_a" else record["operations"][-1]["grid"]
        grid[key] = value

    with pytest.raises(ArtifactError, match="pixels"):
        Artifact.from_bytes(altered("factorized", change))


def test_branches_of_other_sizes_do_not_meet():
    """Each operand fits by itself; only their sizes differ."""

    def change(header: Any) -> None:
        operation(header, "x.a")["inputs"] = ["x.i", "x.g"]

    with pytest.raises(ArtifactError, match="cannot be computed for a tensor of"):
        Codec(Artifact.from_bytes(altered(EVERY_OPERATION, change)), bytes(8), "exact")


def test_groups_divide_the_channels():
    def change(header: Any) -> None:
        operation(header, "x.o")["groups"] = 3

    with pytest.raises(ArtifactError, match="do not fall into 3 groups"):
        Artifact.from_bytes(altered(EVERY_OPERATION, change))


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 300])
def test_names_fit_into_a_line(name):
    def change(header: Any) -> None:
        header["program"][0]["operations"][0]["name"] = name

    with pytest.raises(ArtifactError, match="not a name"):
        Artifact.from_bytes(altered("factorized", change))


def test_the_name_of_a_part_that_is_not_there_is_told_on_one_line():
    def change(header: Any) -> None:
        header["dynamic"] = {"two\nlines \ud800": next(iter(header["dynamic"].values()))}

    with pytest.raises(ArtifactError, match=r"lacks the part 'two\\nlines \\ud800'") as caught:
        Artifact.from_bytes(altered("dynamic", change))
    assert is_one_line(caught.value)


def test_a_part_has_no_more_operations_than_can_be_looked_through():
    """What is done for each of them, looking through all, would take minutes: this file has 3 MB."""

    def change(header: Any) -> None:
        first, *_, last = header["program"][1]["operations"]
        ones = _constant(1, first["grid"]["scale"]["shape"][0])
        rescaling = {"rescaling": dict.fromkeys(("positive", "negative", "shift"), ones)}
        ends = [first["name"], *map(str, range(10_000))]
        more = [
            {"kind": "requantize", "name": name, "inputs": [read], "grid": first["grid"], **rescaling}
            for read, name in pairwise(ends)
        ]
        header["program"][1]["operations"] = [first, *more, {**last, "inputs": [ends[-1]]}]

    with pytest.raises(ArtifactError, match=r"g_s: 100\d\d operations"):
        Artifact.from_bytes(altered("factorized", change))


def test_parts_of_one_name_are_refused():
    with pytest.raises(ArtifactError, match="two parts of one name"):
        Artifact.from_bytes(altered("factorized", lambda header: header["program"].append(header["program"][0])))


# --- plans --------------------------------------------------------------------------------------------------


def test_altered_plans():
    record = Plan.from_json(opened(seed(EVERY_OPERATION))[0]["plan"]).to_json()
    for path in places(record):
        for value in (*OTHERS, *NUMBERS):
            changed = opened(seed(EVERY_OPERATION))[0]["plan"] if not path else _with(record, path, value)
            try:
                Plan.from_json(changed)
            except PlanError as error:
                assert is_one_line(error)


def _with(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    copied = dict(record)
    copied[path[0]] = value if len(path) == 1 else _with(record[path[0]], path[1:], value)
    return copied
