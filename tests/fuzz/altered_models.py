"""Systematic alterations of artifact headers, and what each altered artifact must survive.

``alterations`` put into one place of a header at a time what does not belong there: other ranks and shapes,
values at the edge of every type, missing and foreign keys, other types, tensors read by the wrong operation,
operations and parts in another order; ``mixtures`` alter several values at once. ``survives`` loads the result
and, if it loads, lists it and codes images with it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import resource
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import DYNAMIC_VERSION, MAGIC, VERSION, Artifact
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.contents import layer_contents, selector_contents
from licquant.codec.latents import families
from licquant.config import LayerBits, Plan
from licquant.errors import ArtifactError, BitstreamError, ImageError
from licquant.program.grid import Grid
from licquant.program.ops import Operation, Requantize, Rescaling
from licquant.program.part import INPUT, Part, Program
from tests.dynamic_programs import UNEVEN, dynamic_artifact
from tests.latent_programs import random_program, random_tables
from tests.program_strategies import gated_part, random_part

PREFIX = struct.Struct("<4sHI")
EVERY_OPERATION = "every operation"
SEEDS = (*families.FAMILIES, "dynamic", EVERY_OPERATION)
# For tests that take seconds for each: what the others are made of stands in these, too.
FEW_SEEDS = [pytest.param(name, marks=() if name in SEEDS[-2:] else pytest.mark.slow) for name in SEEDS]

_POWERS = (7, 8, 15, 16, 23, 24, 31, 32, 46, 52, 53, 61, 62, 63, 64)
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    5,
    17,
    *(s * (1 << k) + d for k in _POWERS for s in (1, -1) for d in (0, -1)),
    10**18,
    10**30,
)
NUMBERS: tuple[Any, ...] = (
    *INTEGERS,
    0.5,
    -0.0,
    1e-320,
    1e-38,
    1e38,
    4.6e18,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "x",
    "x" * 5000,
    "é\n",
    [],
    [1],
    [[]],
    {},
    {"blob": 0},
    {"value": 1},
    [None],
)


def seed(name: str) -> bytes:
    """A small valid artifact: of every family, a dynamic one, and one that has every operation."""
    if name == "dynamic":
        return dynamic_artifact(widths=UNEVEN).to_bytes()
    family = families.SCALE_HYPERPRIOR if name == EVERY_OPERATION else name
    program = random_program(family, n=2, m=4, groups=(1, 3))
    if name == EVERY_OPERATION:
        program = _with_every_operation(program)
    plan = Plan({"g_a.0": LayerBits(8, 8), "g_a.1": LayerBits(None, 8)})
    return Artifact(family, program, random_tables(program, family, 9), plan).to_bytes()


def _with_every_operation(program: Program) -> Program:
    """The program with what the property tests make of every operation between the two layers of g_s."""
    g_s = program["g_s"]
    first, last = g_s.operations
    channels = first.grid.channels
    wide = _renamed(random_part(0, 8, 8, channels, channels), "x.", first.name)  # halves the size and doubles it
    narrowed = Grid(8, np.full(2 * channels, 0.1), np.full(2 * channels, 128))
    joint = Requantize("joint", (wide[-1].name,), narrowed, Rescaling.of_ratio(np.full(2 * channels, 0.01)))
    gate = _renamed(gated_part(1, 8, 8, 2 * channels, channels), "y.", joint.name)  # doubles the size
    end = replace(last, inputs=(gate[-1].name,), stride=8, padding=4)
    return Program({**program, "g_s": Part("g_s", g_s.input_grid, (first, *wide, joint, *gate, end))})


def _renamed(part: Part, prefix: str, source: str) -> tuple[Operation, ...]:
    """The operations under other names, reading ``source`` for the part's input."""
    return tuple(
        replace(op, name=prefix + op.name, inputs=tuple(source if n == INPUT else prefix + n for n in op.inputs))
        for op in part.operations
    )


# --- alterations --------------------------------------------------------------------------------------------

Altered = Callable[[Any, np.random.Generator], Iterator[tuple[str, Any]]]


def opened(data: bytes) -> tuple[Any, bytes]:
    """(header, blobs) of an artifact's content."""
    _, _, length = PREFIX.unpack_from(data)
    return json.loads(data[PREFIX.size : PREFIX.size + length]), data[PREFIX.size + length : -32]


def rebuilt(header: Any, blobs: bytes) -> bytes:
    """An artifact's content with a checksum that fits."""
    text = json.dumps(header).encode()
    version = DYNAMIC_VERSION if isinstance(header, dict) and "dynamic" in header else VERSION
    content = PREFIX.pack(MAGIC, version, len(text)) + text + blobs
    return content + hashlib.sha256(content).digest()


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON record."""
    if path:
        yield path
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def at(record: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        record = record[key]
    return record


def alterations(header: Any, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Without end: (what is altered, the altered header), one place at a time; headers share what is not altered."""
    paths = list(places(header))
    while True:
        path = paths[rng.integers(len(paths))]
        instead = [*_instead(header, path), ("missing", _MISSING)]
        name, value = instead[rng.integers(len(instead))]
        if value is not _MISSING or isinstance(path[-1], str):
            yield f"{'/'.join(map(str, path))}: {name}", _put(header, path, value)


def mixtures(header: Any, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Without end: several alterations of values at once, most of them within the ranges of their fields."""
    tensors = [path for path in places(header) if isinstance(at(header, path), dict) and "shape" in at(header, path)]
    whole = [path for path in places(header) if type(at(header, path)) is int and path[-2] != "shape"]
    numbers = [path for path in whole if "shape" not in _parent(header, path)]
    while True:
        altered, said = header, []
        for _ in range(rng.integers(1, 5)):
            if rng.random() < 0.7:
                path = tensors[rng.integers(len(tensors))]
                value = _LIKELY[rng.integers(len(_LIKELY))]
                new: Any = {"value": value, "shape": at(header, path)["shape"]}
            else:
                path = numbers[rng.integers(len(numbers))]
                new = value = int(rng.integers(0, 9)) if rng.random() < 0.7 else 1 << int(rng.integers(0, 17))
            said.append(f"{'/'.join(map(str, path))} = {value}")
            altered = _put(altered, path, new)
        yield "; ".join(said), altered


def _parent(header: Any, path: tuple[Any, ...]) -> Any:
    return at(header, path[:-1])


# At the ends of the ranges of multipliers, shifts, zero points, biases, medians, thresholds and scales.
_LIKELY: tuple[Any, ...] = (
    *(0, 1, 2, 46, 127, 128, 255, (1 << 16) - 1, (1 << 30) - 1, (1 << 31) - 1, (1 << 35) - 1, (1 << 46) - 1, 1 << 46),
    *(-1, -127, 1 - (1 << 16), 1 - (1 << 30), 1 - (1 << 31), -(1 << 46), -(1 << 61), 2.0**-100, 2.0**-16, 2.0**32),
)
_MISSING = object()


def _put(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with one value replaced; copied is only what lies on the way."""
    if not path:
        return value
    key, copied = path[0], copy.copy(record)
    if value is _MISSING and len(path) == 1:
        del copied[key]
    else:
        copied[key] = _put(record[key], path[1:], value)
    return copied


def _instead(header: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """What may stand at a place instead of what stands there."""
    value = at(header, path)
    yield from ((f"the other type {other!r:.40}", other) for other in OTHERS)
    if type(value) in (int, float):
        yield from ((f"the number {number!r:.40}", number) for number in NUMBERS)
        yield from ((f"the neighbour {value + d}", value + d) for d in (-1, 1))
    if isinstance(value, str):
        yield from ((f"the name {name!r:.40}", name) for name in _names(header) if name != value)
    if isinstance(value, dict):
        yield "a further key", {**value, "": 1}
        if "shape" in value:
            yield from _tensors(value)
    if isinstance(value, list) and value and path[-1] != "shape":
        yield "reversed", value[::-1]
        yield "rotated", value[1:] + value[:1]
        yield "twice", value * 2
        yield from ((f"without {i}", value[:i] + value[i + 1 :]) for i in range(len(value)))
        yield from ((f"{i} twice", [*value[: i + 1], *value[i:]]) for i in range(len(value)))


def _names(header: Any) -> list[str]:
    """All names of tensors, parts and operations, and of the kinds of operations."""
    found = {at(header, path) for path in places(header) if path[-1] in ("name", "kind", "family", "dtype", "tensor")}
    return sorted(name for name in found if isinstance(name, str))


def _tensors(reference: Any) -> Iterator[tuple[str, Any]]:
    """Another shape, other values, another length."""
    shape = reference["shape"]
    count = int(np.prod(shape))
    for other in _shapes(shape, count):
        yield f"the shape {other}", {**reference, "shape": other}
        yield f"constant of the shape {other}", {"value": 1, "shape": other}
    for number in NUMBERS:
        yield f"all {number!r:.40}", {"value": number, "shape": shape}
    for dtype in ("<i1", "<u1", "<i2", "<i4", "<i8", "<f4", "<f8", ">i8", "O"):
        yield f"the format {dtype}", {**reference, "dtype": dtype}
    for bits in (0, 1, 2, 9, 16, 17, 64):
        yield f"{bits} bits", {**reference, "bits": bits}
        yield f"{bits} bits inside", {**reference, "nested": bits}
    if "blob" in reference:
        yield from (
            (f"the blob {reference['blob'] + d}", {**reference, "blob": reference["blob"] + d}) for d in (-1, 1)
        )


def _shapes(shape: list[int], count: int) -> list[list[int]]:
    """Every rank with as many elements, neighbours of each side, nothing at all, and far too much."""
    found = [[], [count], [1, count], [count, 1], [1, 1, count], [1, count, 1, 1], [count, 1, 1, 1], [1, 1, 1, count]]
    found += [[count, 1, 1, 1, 1], shape[::-1], [*shape, 1], [1, *shape]]
    found += [[n // f, f, 1, 1] for n in (count,) for f in (2, 3, 4) if n % f == 0]
    for index in range(len(shape)):
        found += [[*shape[:index], n, *shape[index + 1 :]] for n in (shape[index] - 1, shape[index] + 1, 0, -1)]
        found += [
            [*shape[:index], n, *shape[index + 1 :]] for n in (1 << 12, 1 << 17, 1 << 22, 1 << 27, 1 << 62, 10**30)
        ]
    return [other for other in found if other != shape]


# --- trial --------------------------------------------------------------------------------------------------

LEGAL = (ArtifactError, BitstreamError, ImageError)


@cache
def pictures() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    return tuple(rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((70, 33), (1, 1)))


@cache
def coded(name: str) -> Bitstream:
    """A picture coded with a seed as it is."""
    return Bitstream.from_bytes(Codec(Artifact.from_bytes(seed(name)), bytes(8), "exact", 1).encode(pictures()[0]))


def survives(data: bytes, valid: Bitstream, engine: str = "exact") -> bool:
    """Whether the artifact is accepted; whatever is not one of the ``LEGAL`` errors with one line propagates."""
    try:
        artifact = Artifact.from_bytes(data)
        codec = Codec(artifact, bytes(8), engine, 1)
    except ArtifactError as error:
        assert is_one_line(error)
        return False
    assert layer_contents(data, artifact)
    selector_contents(data, artifact)
    for rgb in pictures():
        try:
            found = codec.encode(rgb)
            assert codec.decode(found).shape == rgb.shape
            assert codec.encode(rgb) == found
        except LEGAL as error:
            assert is_one_line(error)
    try:
        codec.decode(valid.to_bytes())
    except LEGAL as error:
        assert is_one_line(error)
    return True


def is_one_line(error: Exception) -> bool:
    return 0 < len(str(error)) < 400 and "\n" not in str(error)


def survey(name: str, alter: Altered, count: int, engine: str = "exact", draw: int = 0) -> tuple[int, list[str]]:
    """(how many of so many altered artifacts are accepted, what went wrong)."""
    header, blobs = opened(seed(name))
    accepted, wrong = 0, []
    for what, altered in itertools.islice(alter(header, np.random.default_rng(draw)), count):
        try:
            accepted += survives(rebuilt(altered, blobs), coded(name), engine)
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            wrong.append(f"{what}: {type(error).__name__} {error!s:.80} in {where.filename}:{where.lineno}")
    return accepted, wrong


def main(name: str, count: int, megabytes: int, draw: int, engine: str) -> None:
    """In a process of its own that has so much memory beside what it starts with; says what went wrong."""
    warnings.simplefilter("error")
    header, blobs = opened(seed(name))
    assert survives(rebuilt(header, blobs), coded(name), engine)  # which loads whatever is loaded late
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for alter, part in ((alterations, count * 3 // 4), (mixtures, count // 4)):
        accepted, wrong = survey(name, alter, part, engine, draw)
        sys.stdout.write("\n".join([*wrong, f"{accepted} of {part} {alter.__name__} accepted\n"]))
        if wrong or not accepted:
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5])
