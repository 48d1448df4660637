"""Programs to and from JSON with blobs. Each operation's fields are declared once, in ``_FIELDS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from licquant.codec.blobs import BlobReader, BlobWriter, get
from licquant.errors import ArtifactError, LoweringError
from licquant.program.arithmetic import MAX_BITS, MIN_BITS, nested_weight
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Multiply,
    Operation,
    PixelShuffle,
    Requantize,
    Rescaling,
    Sigmoid,
    TransposedConvolution,
)
from licquant.program.part import Part, Program

# Operation → its name in the file and its own fields with their kinds, in the order of the dataclass.
_FIELDS: dict[type[Operation], tuple[str, dict[str, str]]] = {
    Convolution: (
        "convolution",
        {
            "weight": "weights",
            "weight_bits": "width",
            "bias": "integers",
            "stride": "number",
            "padding": "number",
            "groups": "number",
            "rescaling": "rescaling",
        },
    ),
    TransposedConvolution: (
        "transposed_convolution",
        {
            "weight": "weights",
            "weight_bits": "width",
            "bias": "integers",
            "stride": "number",
            "padding": "number",
            "output_padding": "number",
            "rescaling": "rescaling",
        },
    ),
    Gdn: (
        "gdn",
        {
            "gamma": "weights",
            "weight_bits": "width",
            "beta": "integers",
            "square_bits": "number",
            "square_multiplier": "integers",
            "square_shift": "integers",
            "multiplier": "integers",
            "shift": "integers",
            "inverse": "flag",
        },
    ),
    Add: ("add", {"multipliers": "list of integers", "rescaling": "rescaling"}),
    Requantize: ("requantize", {"rescaling": "rescaling"}),
    Multiply: ("multiply", {"rescaling": "rescaling"}),
    Sigmoid: ("sigmoid", {"table": "integers"}),
    PixelShuffle: ("pixel_shuffle", {"factor": "number"}),
}
_TYPES = {name: (kind, fields) for kind, (name, fields) in _FIELDS.items()}
# Operation → the field of its weights.
WEIGHTS = {kind: field for kind, (_, fields) in _FIELDS.items() for field, form in fields.items() if form == "weights"}
_LARGEST_NUMBER = 1 << 16


def program_to_json(program: Program, writer: BlobWriter) -> list[dict[str, Any]]:
    return [part_to_json(part, writer) for part in program.values()]


def program_from_json(record: Any, reader: BlobReader) -> Program:
    """``ArtifactError`` for anything that is not a valid program, accumulator bounds included."""
    if not isinstance(record, list):
        raise ArtifactError("the program is not a list of parts")
    try:
        parts = [part_from_json(part, reader) for part in record]
    except LoweringError as error:
        raise ArtifactError(f"not a valid program: {error}") from error
    return Program({part.name: part for part in parts})


def part_to_json(part: Part, writer: BlobWriter) -> dict[str, Any]:
    return {
        "name": part.name,
        "input_grid": _grid_to_json(part.input_grid, writer),
        "operations": [operation_to_json(op, writer) for op in part.operations],
    }


def part_from_json(record: Any, reader: BlobReader) -> Part:
    """``ArtifactError`` for what cannot be read, ``LoweringError`` for what is not a valid part."""
    input_grid = _grid_from_json(get(record, "input_grid", dict), reader)
    return Part(get(record, "name", str), input_grid, operations_from_json(record, reader))


def operations_from_json(record: Any, reader: BlobReader) -> tuple[Operation, ...]:
    return tuple(_operation_from_json(op, reader) for op in get(record, "operations", list))


def nested_operation_to_json(
    op: Operation, widest: Operation, stored: dict[str, Any], writer: BlobWriter
) -> dict[str, Any]:
    """An operation whose weights lie inside those of a wider one, which is stored: they are not stored again.

    Raises ``ValueError`` (a caller's mistake) for weights that do not.
    """
    field, bits = WEIGHTS[type(op)], op.weight_bits  # type: ignore[attr-defined]
    inside = nested_weight(getattr(widest, field), widest.weight_bits, bits)  # type: ignore[attr-defined]
    if not np.array_equal(inside, getattr(op, field)):
        raise ValueError(f"{op.name}: its weights of {bits} bits are not those inside the stored ones")
    return operation_to_json(op, writer, {field: writer.nested(stored[field], bits)})


def operation_to_json(op: Operation, writer: BlobWriter, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """known: fields that are written already."""
    kind, fields = _FIELDS[type(op)]
    record: dict[str, Any] = {
        "kind": kind,
        "name": op.name,
        "inputs": list(op.inputs),
        "grid": _grid_to_json(op.grid, writer),
    }
    for field, form in fields.items():
        value = getattr(op, field)
        if known and field in known:
            record[field] = known[field]
        elif form == "weights":
            record[field] = writer.weights(value, op.weight_bits)  # type: ignore[attr-defined]
        elif form == "integers":
            record[field] = writer.vector(value)
        elif form == "list of integers":
            record[field] = [writer.vector(v) for v in value]
        elif form == "rescaling":
            record[field] = {key: writer.vector(getattr(value, key)) for key in ("positive", "negative", "shift")}
        else:
            record[field] = value
    return record


def _operation_from_json(record: Any, reader: BlobReader) -> Operation:
    kind = get(record, "kind", str)
    if kind not in _TYPES:
        raise ArtifactError(f"unknown operation {kind[:40]!r}: made by a newer licquant?")
    cls, fields = _TYPES[kind]
    inputs = get(record, "inputs", list)
    if not all(isinstance(name, str) for name in inputs):
        raise ArtifactError("an operation's inputs are not names")
    values = {field: _field_from_json(record, field, form, reader) for field, form in fields.items()}
    grid = _grid_from_json(get(record, "grid", dict), reader)
    return cls(get(record, "name", str), tuple(inputs), grid, **values)


def _field_from_json(record: Any, field: str, form: str, reader: BlobReader) -> Any:
    if form == "width":
        bits = get(record, field, int)
        if not MIN_BITS <= bits <= MAX_BITS:
            raise ArtifactError(f"the field {field!r} is not a width from {MIN_BITS} to {MAX_BITS}")
        return bits
    if form == "number":
        number = get(record, field, int)
        if not 0 <= number <= _LARGEST_NUMBER:
            raise ArtifactError(f"the field {field!r} is out of range")
        return number
    if form == "flag":
        return get(record, field, bool)
    if form == "weights":
        return reader.weights(get(record, field, dict))
    if form == "list of integers":
        return tuple(_vector(item, reader) for item in get(record, field, list))
    if form == "rescaling":
        found = get(record, field, dict)
        return Rescaling(*(_vector(found.get(key), reader) for key in ("positive", "negative", "shift")))
    return _vector(record.get(field), reader)


def _vector(reference: Any, reader: BlobReader) -> np.ndarray:
    values = reader.integers(reference)
    if values.ndim != 1:
        raise ArtifactError("a tensor that must have one dimension has another shape")
    return values


def _grid_to_json(grid: Grid, writer: BlobWriter) -> dict[str, Any]:
    return {"bits": grid.bits, "scale": writer.vector(grid.scale), "zero_point": writer.vector(grid.zero_point)}


def _grid_from_json(record: Any, reader: BlobReader) -> Grid:
    return Grid(get(record, "bits", int), reader.reals(record.get("scale")), reader.integers(record.get("zero_point")))
