"""Bit operations per pixel of an integer program: multiply-accumulates · weight bits · activation bits.

The papers' measure of computation. It is nominal: what widths really save is a matter of kernels, see
``latency.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from licquant.codec.files.contents import LayerContents
from licquant.config import LayerBits, Plan
from licquant.evaluate.widths import Widths, layers_at
from licquant.program.ops import Convolution, Gdn, Operation, TransposedConvolution
from licquant.program.part import INPUT, Part, Program

_SIDE = 1 << 12  # of an image that every stride divides
_SOURCE = {"h_s": "h_a"}  # part → the part whose output it reads; the others read y


def macs_per_pixel(program: Program) -> dict[str, float]:
    """Operation name → multiply-accumulates per pixel of the image; 0 for operations without weights."""
    outputs = {"g_a": program["g_a"].output_size((_SIDE, _SIDE))}
    if "h_a" in program:
        outputs["h_a"] = program["h_a"].output_size(outputs["g_a"])
    found: dict[str, float] = {}
    for name, part in program.items():
        size = (_SIDE, _SIDE) if name == "g_a" else outputs[_SOURCE.get(name, "g_a")]
        found |= _macs_of_part(part, size)
    return {name: macs / _SIDE**2 for name, macs in found.items()}


def bops_per_pixel(macs: Mapping[str, float], plan: Plan) -> float:
    """Σ over the planned layers: MACs per pixel (``macs_per_pixel``) · weight bits · bits of the layer's input."""
    return sum(macs[name] * (bits.weight or 0) * bits.activation for name, bits in plan.items())


def average_bops(
    macs: Mapping[str, float],
    layers: Sequence[LayerContents],
    stages: Mapping[str, str],
    chosen: Sequence[Widths],
) -> float:
    """``bops_per_pixel`` as the mean over images, given what was chosen for each; without images at the widest widths.

    stages: ``widths.stage_of_layer``
    """
    at_images = [layers_at(layers, stages, widths) for widths in chosen] or [list(layers)]
    return fmean(
        bops_per_pixel(
            macs, Plan({one.name: LayerBits(one.weight_bits, one.activation_bits) for one in of if one.activation_bits})
        )
        for of in at_images
    )


def _macs_of_part(part: Part, size: tuple[int, int]) -> dict[str, float]:
    sizes = {INPUT: size}
    macs = {}
    for op in part.operations:
        entering = sizes[op.inputs[0]]
        sizes[op.name] = op.output_size(entering)
        # A transposed convolution uses every weight once for each position of its input, the others of their output.
        height, width = entering if isinstance(op, TransposedConvolution) else sizes[op.name]
        macs[op.name] = float(_weights(op) * height * width)
    return macs


def _weights(op: Operation) -> int:
    """How many are multiplied: a tap without any weight, as a mask makes them, is not."""
    if isinstance(op, Convolution | TransposedConvolution):
        taps = int(np.count_nonzero(op.weight.any(axis=(0, 1))))
        return op.weight.shape[0] * op.weight.shape[1] * taps
    return op.gamma.size if isinstance(op, Gdn) else 0
