"""Programs to and from JSON with blobs, by the table of what each operation holds (``program/fields.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from licquant.codec.files.blobs import BlobReader, BlobWriter, get, is_name, name_of
from licquant.errors import ArtifactError, LoweringError
from licquant.program.arithmetic import nested_weight
from licquant.program.fields import OPERATIONS, Field, Flag, Integers, Number, OfEachInput, Scaling, Weights
from licquant.program.grid import Grid
from licquant.program.ops import Operation, Rescaling
from licquant.program.part import Part, Program

_TYPES = {name: (kind, fields) for kind, (name, fields) in OPERATIONS.items()}
# Operation → the field of its weights.
WEIGHTS = {
    kind: next(name for name, field in fields.items() if isinstance(field, Weights))
    for kind, (_, fields) in OPERATIONS.items()
    if "weight_bits" in fields
}
_RESCALING = ("positive", "negative", "shift")


def program_to_json(program: Program, writer: BlobWriter) -> list[dict[str, Any]]:
    """One record a part, in their order; the numbers go to the writer."""
    return [part_to_json(part, writer) for part in program.values()]


def program_from_json(record: Any, reader: BlobReader) -> Program:
    """``ArtifactError`` for anything that is not a valid program, accumulator bounds included."""
    if not isinstance(record, list):
        raise ArtifactError("the program is not a list of parts")
    try:
        parts = [part_from_json(part, reader) for part in record]
    except LoweringError as error:
        raise ArtifactError(f"not a valid program: {error}") from error
    program = Program({part.name: part for part in parts})
    if len(program) < len(parts):
        raise ArtifactError("the program has two parts of one name")
    return program


def part_to_json(part: Part, writer: BlobWriter) -> dict[str, Any]:
    """Name, input grid and operations of a part."""
    return {
        "name": part.name,
        "input_grid": _grid_to_json(part.input_grid, writer),
        "operations": [operation_to_json(op, writer) for op in part.operations],
    }


def part_from_json(record: Any, reader: BlobReader) -> Part:
    """``ArtifactError`` for what cannot be read, ``LoweringError`` for what is not a valid part."""
    input_grid = _grid_from_json(get(record, "input_grid", dict), reader)
    return Part(name_of(record), input_grid, operations_from_json(record, reader))


def operations_from_json(record: Any, reader: BlobReader) -> tuple[Operation, ...]:
    """The operations of a record of a part or stage, none of them checked against its inputs yet."""
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
    kind, fields = OPERATIONS[type(op)]
    record: dict[str, Any] = {
        "kind": kind,
        "name": op.name,
        "inputs": list(op.inputs),
        "grid": _grid_to_json(op.grid, writer),
    }
    for name, field in fields.items():
        record[name] = known[name] if known and name in known else _field_to_json(op, name, field, writer)
    return record


def _field_to_json(op: Operation, name: str, field: Field, writer: BlobWriter) -> Any:
    value = getattr(op, name)
    match field:
        case Weights():
            return writer.weights(value, op.weight_bits)  # type: ignore[attr-defined]
        case Integers():
            return writer.vector(value)
        case OfEachInput():
            return [writer.vector(v) for v in value]
        case Scaling():
            return {key: writer.vector(getattr(value, key)) for key in _RESCALING}
    return value


def _operation_from_json(record: Any, reader: BlobReader) -> Operation:
    kind = get(record, "kind", str)
    if kind not in _TYPES:
        raise ArtifactError(f"unknown operation {kind[:40]!r}: made by a newer licquant?")
    cls, fields = _TYPES[kind]
    inputs = get(record, "inputs", list)
    if not all(is_name(name) for name in inputs):
        raise ArtifactError("an operation's inputs are not names")
    values = {name: _field_from_json(record, name, field, reader) for name, field in fields.items()}
    grid = _grid_from_json(get(record, "grid", dict), reader)
    return cls(name_of(record), tuple(inputs), grid, **values)


def _field_from_json(record: Any, name: str, field: Field, reader: BlobReader) -> Any:
    match field:
        case Number(low, high):
            number = get(record, name, int)
            if not low <= number <= high:
                raise ArtifactError(f"the field {name!r} lies outside {low}..{high}")
            return number
        case Flag():
            return get(record, name, bool)
        case Weights(axes):
            return reader.weights(get(record, name, dict), len(axes))
        case Integers():
            return reader.integers(record.get(name))
        case OfEachInput():
            return tuple(reader.integers(item) for item in get(record, name, list))
        case Scaling():
            found = get(record, name, dict)
            return Rescaling(*(reader.integers(found.get(key)) for key in _RESCALING))


def _grid_to_json(grid: Grid, writer: BlobWriter) -> dict[str, Any]:
    return {"bits": grid.bits, "scale": writer.vector(grid.scale), "zero_point": writer.vector(grid.zero_point)}


def _grid_from_json(record: Any, reader: BlobReader) -> Grid:
    return Grid(get(record, "bits", int), reader.reals(record.get("scale")), reader.integers(record.get("zero_point")))
