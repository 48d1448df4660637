"""What an artifact holds, layer by layer: widths, bytes in the file, accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from licquant.codec.artifact import Artifact, blob_sizes


@dataclass(frozen=True)
class LayerContents:
    """One operation of a program.

    name: its path; part: the part it belongs to; operation: its kind in the file
    weight_bits, activation_bits: as in the plan; None for operations that have no entry there
    bytes: what its tensors take in the file;  weights: how many it has
    accumulator_bits: of a signed integer that holds every partial sum, whatever the input
    """

    name: str
    part: str
    operation: str
    weight_bits: int | None
    activation_bits: int | None
    bytes: int
    weights: int
    accumulator_bits: int


def layer_contents(data: bytes, artifact: Artifact) -> list[LayerContents]:
    """One entry per operation, in order; ``data`` is the content that ``artifact`` was read from."""
    header, sizes = blob_sizes(data)
    layers = []
    for record in header["program"]:
        part = artifact.program[record["name"]]
        for stored, op in zip(record["operations"], part.operations, strict=True):
            bits = artifact.plan.layers.get(op.name)
            weight = getattr(op, "weight", getattr(op, "gamma", None))
            layers.append(
                LayerContents(
                    op.name,
                    part.name,
                    stored["kind"],
                    bits.weight if bits else None,
                    bits.activation if bits else None,
                    sum(sizes[index] for index in _blobs(stored)),
                    0 if weight is None else weight.size,
                    op.bound(part.input_grids(op)).bit_length() + 1,
                )
            )
    return layers


def _blobs(record: Any) -> Iterator[int]:
    """The indices of every blob that a record refers to."""
    if isinstance(record, dict):
        if "blob" in record:
            yield record["blob"]
        for value in record.values():
            yield from _blobs(value)
    elif isinstance(record, list):
        for value in record:
            yield from _blobs(value)
