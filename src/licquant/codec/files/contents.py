"""What an artifact holds, layer by layer: widths, bytes in the file, accumulators."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from licquant.codec.files.artifact import Artifact, blob_sizes
from licquant.program.ops import Convolution


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
                    _bytes(stored, sizes),
                    weights=0 if weight is None else weight.size,
                    accumulator_bits=op.bound(part.input_grids(op)).bit_length() + 1,
                )
            )
    return layers


@dataclass(frozen=True)
class SelectorContents:
    """What a part has whose widths depend on the image, beside its layers at the widest.

    part:   g_a or g_s;  stages: those that get a width for each image → the candidates
    bytes:  what the narrower widths take in the file: grids, biases and rescalings, no weights
    selector_bytes, selector_weights: of the selector
    """

    part: str
    stages: dict[str, tuple[int, ...]]
    bytes: int
    selector_bytes: int
    selector_weights: int


def selector_contents(data: bytes, artifact: Artifact) -> list[SelectorContents]:
    """One entry per dynamic part; ``data`` is the content that ``artifact`` was read from."""
    header, sizes = blob_sizes(data)
    shared = _blobs(header["program"])
    found = []
    for name, part in artifact.dynamic.items():
        record = header["dynamic"][name]
        network = part.selector.network.operations
        found.append(
            SelectorContents(
                name,
                {stage.name: stage.widths for stage in part.stages if len(stage.parts) > 1},
                _bytes(record["stages"], sizes, shared),
                _bytes(record["selector"], sizes, shared),
                sum(op.weight.size for op in network if isinstance(op, Convolution)),
            )
        )
    return found


def _bytes(record: Any, sizes: Sequence[int], without: Set[int] = frozenset()) -> int:
    """What the blobs take together that a record refers to; a file may refer to some that there are not."""
    return sum(sizes[index] for index in _blobs(record) - without if index < len(sizes))


def _blobs(record: Any) -> set[int]:
    """The indices of every blob that a record refers to."""
    found, left = set(), [record]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            index = one.get("blob")
            if type(index) is int and index >= 0:
                found.add(index)
            left += one.values()
        elif isinstance(one, list):
            left += one
    return found
