"""ELIC as Vincent Chandelier's re-implementation and its descendants write it, as CompressAI's ELIC.

    theirs                          CompressAI's
    context_prediction.k            latent_codec.y.latent_codec.yk.context_prediction
    ParamAggregation.k              latent_codec.y.latent_codec.yk.entropy_parameters
    cc_transforms.(k-1)             latent_codec.y.channel_context.yk
    h_a, h_s, entropy_bottleneck    latent_codec.hyper.…

Three things differ beside the names. Their channel context reads the first group and the one before, CompressAI's all
groups before: weights of 0 for the others make it the same function. Their parameters are means, then scales:
the last layer's outputs change places. Some layers of h_s and of the aggregation are wider, or a convolution where
CompressAI has a transposed one: the model gets layers of their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from licquant.models.recognize import ELIC, Architecture, differences

_HYPER = "latent_codec.hyper."
_LATENT = "latent_codec.y."


@dataclass(frozen=True)
class Reimplementation(Architecture):
    """CompressAI's ELIC with layers of the shapes that the translated weights have."""

    weights: Mapping[str, Tensor]

    def build(self) -> nn.Module:
        """CompressAI's model, with random weights, after its layers got the shapes of these."""
        model: Any = super().build()
        for part in [f"{_LATENT}latent_codec.y{k}.entropy_parameters" for k in range(len(self.arguments["groups"]))]:
            for name, layer in model.get_submodule(part).named_children():
                if isinstance(layer, nn.Conv2d):
                    outputs, inputs, kernel, _ = self.weights[f"{part}.{name}.weight"].shape
                    setattr(model.get_submodule(part), name, nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
        outputs, inputs, kernel, _ = self.weights[f"{_HYPER}h_s.4.weight"].shape
        model.get_submodule(f"{_HYPER}h_s")[4] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        built: nn.Module = model
        return built

    __str__ = Architecture.__str__


def reimplementation(state: Mapping[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]] | None:
    """The model and its weights under CompressAI's names, if a state dict is one of the re-implementation's."""
    groups: list[int] = []
    while (weight := state.get(f"context_prediction.{len(groups)}.weight")) is not None and weight.dim() == 4:
        groups.append(weight.shape[1])
    first = state.get("g_a.0.weight")
    if len(groups) < 2 or "ParamAggregation.0.0.weight" not in state or first is None or first.dim() != 4:
        return None
    try:
        translated = _translated(state, groups)
        arguments = {"N": first.shape[0], "M": sum(groups), "groups": groups}
        architecture = Reimplementation(ELIC, arguments, translated)
        fits = not differences(architecture.build(), translated)
    except (KeyError, ValueError, IndexError, RuntimeError, AssertionError, AttributeError):
        return None
    return (architecture, translated) if fits else None


def _translated(state: Mapping[str, Tensor], groups: list[int]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        number, _, layer = rest.partition(".")
        if part in ("h_a", "h_s", "entropy_bottleneck"):
            renamed[_HYPER + key] = value
        elif part == "context_prediction":
            renamed[f"{_LATENT}latent_codec.y{number}.context_prediction.{layer}"] = value
        elif part == "ParamAggregation":
            swapped = torch.cat(value.chunk(2)[::-1]) if layer.startswith("4.") else value
            renamed[f"{_LATENT}latent_codec.y{number}.entropy_parameters.{layer}"] = swapped
        elif part == "cc_transforms":
            k = int(number) + 1
            context = _over_all_groups(value, groups, k) if layer == "0.weight" else value
            renamed[f"{_LATENT}channel_context.y{k}.{layer}"] = context
        elif part == "gaussian_conditional":
            for k in range(len(groups)):
                renamed[f"{_LATENT}latent_codec.y{k}.y.{key}"] = value
        else:
            renamed[key] = value
    return renamed


def _over_all_groups(weight: Tensor, groups: list[int], k: int) -> Tensor:
    """Of the first group and the one before, to all groups before group k."""
    if weight.shape[1] == sum(groups[:k]):
        return weight
    before = groups[k - 1]
    if weight.shape[1] != groups[0] + before:
        raise ValueError("reads other groups")
    between = weight.new_zeros(weight.shape[0], sum(groups[1 : k - 1]), *weight.shape[2:])
    return torch.cat([weight[:, : groups[0]], between, weight[:, groups[0] :]], dim=1)
