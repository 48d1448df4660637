"""Widths that depend on the image: what a codec chose for each, how much that differs, and its average.

Needs no PyTorch: ``licquant inspect`` tells it where files are coded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from licquant.errors import DataError
from licquant.images import RGB

if TYPE_CHECKING:  # their libraries may be missing where models are trained
    from licquant.codec.codec import Codec
    from licquant.codec.files.artifact import Artifact
    from licquant.codec.files.contents import LayerContents

Widths = Mapping[str, int]  # stage → bits, of g_a as the encoder chose them, of g_s as the decoder does


@dataclass(frozen=True)
class AverageBits:
    """Average widths of a quantized model, in bits; where they depend on the image, of several images' averages.

    weight:       over all weights, so that a layer counts by its parameters: what decides the file's size
    weight_layer: over the layers that have weights, each counted once: what the FMPQ paper's plots show
    activation:   over all layers, each counted once
    """

    weight: float
    weight_layer: float
    activation: float


def average_bits(layers: Sequence[LayerContents]) -> AverageBits:
    """The averages over the layers that the plan has widths for; ``DataError`` if none has weights."""
    weighted = [(layer.weight_bits, layer.weights) for layer in layers if layer.weight_bits is not None]
    activations = [layer.activation_bits for layer in layers if layer.activation_bits is not None]
    if not sum(count for _, count in weighted):
        raise DataError("the artifact has no quantized weights")
    return AverageBits(
        weight=sum(bits * count for bits, count in weighted) / sum(count for _, count in weighted),
        weight_layer=fmean(bits for bits, _ in weighted),
        activation=fmean(activations),
    )


def chosen_widths(codec: Codec, rgb: RGB) -> dict[str, int]:
    """What is chosen for an image; empty for a codec that chooses nothing."""
    if not codec.artifact.dynamic:
        return {}
    latents = codec.analyse(rgb)
    return {**latents.widths, **codec.synthesis_widths(latents.y)}


class Recording:
    """A codec that keeps what it chose. widths: of each image in turn, once it is encoded and then decoded."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.widths: list[dict[str, int]] = []

    def encode(self, rgb: RGB) -> bytes:
        """The codec's bytes; begins the image's entry in ``widths`` with what the encoder chose."""
        data, widths = self.codec.encode_with_widths(rgb)
        self.widths.append(widths)
        return data

    def decode(self, data: bytes) -> RGB:
        """The codec's image; adds what the decoder chose to the last entry of ``widths``."""
        rgb, widths = self.codec.decode_with_widths(data)
        self.widths[-1] |= widths
        return rgb


def stage_of_layer(artifact: Artifact) -> dict[str, str]:
    """Layer → the stage whose width it gets; without the layers whose width is fixed."""
    return {
        op.name: stage.name
        for part in artifact.dynamic.values()
        for stage in part.stages[1:]
        for op in stage.widest.operations
    }


def layers_at(layers: Sequence[LayerContents], stages: Mapping[str, str], widths: Widths) -> list[LayerContents]:
    """The layers with the widths chosen for an image in place of the widest; stages: ``stage_of_layer``."""
    return [
        replace(
            layer,
            weight_bits=None if layer.weight_bits is None else widths[stages[layer.name]],
            activation_bits=None if layer.activation_bits is None else widths[stages[layer.name]],
        )
        if layer.name in stages
        else layer
        for layer in layers
    ]


def average_bits_over(
    layers: Sequence[LayerContents], stages: Mapping[str, str], chosen: Sequence[Widths]
) -> AverageBits:
    """The averages of every image, averaged over the images, of which there is at least one."""
    found = [average_bits(layers_at(layers, stages, widths)) for widths in chosen]
    names = [field.name for field in fields(AverageBits)]
    return AverageBits(**{name: fmean(getattr(bits, name) for bits in found) for name in names})


def majority(chosen: Sequence[Widths]) -> Widths:
    """The widths, of all stages together, that most images have; of several such, those of the first image."""
    counts = Counter(tuple(widths.items()) for widths in chosen)
    return dict(counts.most_common(1)[0][0])


def share_different(chosen: Sequence[Widths]) -> float:
    """The share of images, 0 to 1, whose widths are not the ``majority``'s: 0 where the network is in effect static."""
    most = majority(chosen)
    return sum(widths != most for widths in chosen) / len(chosen)


def summary(chosen: Sequence[Widths]) -> dict[str, Any]:
    """For JSON: what most images have, how many differ, and every stage's average width in bits."""
    return {
        "majority": dict(majority(chosen)),
        "share_different": share_different(chosen),
        "stage_bits": {stage: fmean(widths[stage] for widths in chosen) for stage in chosen[0]},
    }


def sentence(chosen: Sequence[Widths]) -> str:
    """``summary`` in words."""
    most = ", ".join(f"{stage} {bits}" for stage, bits in majority(chosen).items())
    count = sum(widths != majority(chosen) for widths in chosen)
    return f"{count} of {len(chosen)} images ({100 * count / len(chosen):.0f} %) differ from what most have: {most}"
