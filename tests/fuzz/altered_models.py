"""Systematic alterations of artifact headers, and what each altered artifact must survive.

``alterations`` puts into one place of a header at a time what does not belong there: other ranks and shapes,
values at the edge of every type, missing and foreign keys, other types, tensors read by the wrong operation,
operations and parts in another order. ``survives`` loads the result and, if it loads, codes images with it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from licquant.codec import families
from licquant.codec.artifact import DYNAMIC_VERSION, MAGIC, VERSION, Artifact
from licquant.codec.bitstream import Bitstream
from licquant.codec.codec import Codec
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

Alter = Callable[[Any], None]


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


def alterations(header: Any) -> Iterator[tuple[str, Any]]:
    """(what is altered, the altered header), one alteration at a time; headers share what is not altered."""
    for path in places(header):
        for name, value in _instead(header, path):
            yield f"{'/'.join(map(str, path))}: {name}", _put(header, path, value)
        if isinstance(path[-1], str):
            yield f"{'/'.join(map(str, path))}: missing", _put(header, path, _MISSING)


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


def survives(data: bytes, valid: Bitstream, engine: str = "exact") -> bool:
    """Whether the artifact is accepted; whatever is not one of the ``LEGAL`` errors with one line propagates."""
    try:
        codec = Codec(Artifact.from_bytes(data), bytes(8), engine, 1)
    except ArtifactError as error:
        assert str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 300
        return False
    for rgb in pictures():
        try:
            coded = codec.encode(rgb)
            decoded = codec.decode(coded)
            assert decoded.shape == rgb.shape
            assert codec.encode(rgb) == coded
        except LEGAL as error:
            assert "\n" not in str(error)
    try:
        codec.decode(valid.to_bytes())
    except LEGAL as error:
        assert "\n" not in str(error)
    return True
