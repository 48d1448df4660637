"""Dynamic parts to and from JSON with blobs, beside the program that holds them at their widest widths.

    {"g_a": {"stages": [{"name": "g_a.0", "operations": 1, "width": 8, "narrower": []},
                        {"name": "g_a.1", "operations": 2, "width": 10,
                         "narrower": [{"width": 6, "operations": […]}, …]}],
             "selector": {"tensor": "g_a.0", "network": {…}}}}

``operations`` counts those of the program that the stage is made of; the weights of the narrower ones refer to
theirs. What is stored for a width is its own grids, biases and rescalings. The selector chooses of the widths of all
stages that have a narrower one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from licquant.codec.files.blobs import BlobReader, BlobWriter, get, name_of
from licquant.codec.files.program import (
    WEIGHTS,
    nested_operation_to_json,
    operation_to_json,
    operations_from_json,
    part_from_json,
    part_to_json,
)
from licquant.errors import ArtifactError, LoweringError
from licquant.program.dynamic import DynamicPart, Stage, split
from licquant.program.part import Part, Program
from licquant.program.selector import Selector


def dynamic_to_json(
    dynamic: Mapping[str, DynamicPart], program: list[dict[str, Any]], writer: BlobWriter
) -> dict[str, Any]:
    """program: the whole program's JSON, whose weights are referred to.

    Raises ``ValueError`` (a caller's mistake) for narrower weights that do not lie inside the widest ones.
    """
    stored = {record["name"]: {op["name"]: op for op in record["operations"]} for record in program}
    return {
        name: {
            "stages": [_stage_to_json(stage, stored[name], writer) for stage in part.stages],
            "selector": {
                "tensor": part.selector.tensor,
                "network": part_to_json(part.selector.network, writer),
            },
        }
        for name, part in dynamic.items()
    }


def dynamic_from_json(record: Any, program: Program, reader: BlobReader) -> dict[str, DynamicPart]:
    """``ArtifactError`` for anything that does not fit the program."""
    if not isinstance(record, dict) or not record:
        raise ArtifactError("what depends on the image is not a record of parts")
    found = {}
    for name, entry in record.items():
        if name not in program:
            raise ArtifactError(f"the program lacks the part {name[:40]!r}")
        try:
            found[name] = _part_from_json(entry, program[name], reader)
        except LoweringError as error:
            raise ArtifactError(f"not a valid dynamic part: {error}") from error
    return found


def _stage_to_json(stage: Stage, stored: Mapping[str, dict[str, Any]], writer: BlobWriter) -> dict[str, Any]:
    widest = {op.name: op for op in stage.widest.operations}
    *narrower, width = stage.parts
    return {
        "name": stage.name,
        "operations": len(widest),
        "width": width,
        "narrower": [
            {
                "width": bits,
                "operations": [
                    nested_operation_to_json(op, widest[op.name], stored[op.name], writer)
                    if type(op) in WEIGHTS
                    else operation_to_json(op, writer)
                    for op in stage.parts[bits].operations
                ],
            }
            for bits in narrower
        ],
    }


def _part_from_json(record: Any, part: Part, reader: BlobReader) -> DynamicPart:
    stages = get(record, "stages", list)
    lengths = [get(stage, "operations", int) for stage in stages]
    built = [_stage_from_json(*pair, reader) for pair in zip(stages, split(part, lengths), strict=True)]
    selector = get(record, "selector", dict)
    network = part_from_json(selector.get("network"), reader)
    candidates = tuple(stage.widths for stage in built if len(stage.parts) > 1)
    return DynamicPart(part, tuple(built), Selector(get(selector, "tensor", str), candidates, network))


def _stage_from_json(record: Any, widest: Part, reader: BlobReader) -> Stage:
    narrower = {
        get(entry, "width", int): Part(widest.name, widest.input_grid, operations_from_json(entry, reader))
        for entry in get(record, "narrower", list)
    }
    return Stage(name_of(record), {**narrower, get(record, "width", int): widest})
