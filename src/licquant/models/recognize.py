"""Which registered model a state dict is of, and how wide: by the names and shapes of its tensors.

A small model is built with two widths that no other size in it equals; where its shapes show one of them, the state
dict shows its own. The names do not depend on the widths, so few models are left to be built with those widths and
compared shape by shape. Buffers (coding tables, bounds) do not count: what is missing of them is computed anew.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import compressai.models  # noqa: F401  (fills the registry)
import torch
from compressai.registry import MODELS
from torch import Size, Tensor, nn

from licquant.errors import ModelError

# CompressAI registers them under these names; every one is tested.
SUPPORTED = (
    "bmshj2018-factorized",
    "bmshj2018-factorized-relu",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
    "cheng2020-anchor-checkerboard",
    "elic2022-official",
)
ELIC = "elic2022-official"
_MARKS = {"N": 22, "M": 46}  # even, as widths are halved and taken one and a half times
_SHOWN = 3


@dataclass(frozen=True)
class Architecture:
    """A registered model and what it is built with: N, M, of ELIC its groups."""

    name: str
    arguments: Mapping[str, Any]

    def build(self) -> nn.Module:
        """With random weights, and no trace in the random numbers that others draw."""
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = MODELS[self.name](**self.arguments)
        return model

    def __str__(self) -> str:
        widths = [f"{key}={value}" for key, value in self.arguments.items() if isinstance(value, int)]
        return ", ".join([self.name, *widths])


def architectures_of(state: Mapping[str, Tensor]) -> list[Architecture]:
    """The registered models that a state dict fits: one, or none."""
    found = (_widths(name, state) for name in SUPPORTED if not _unlike(name, state))
    return [architecture for architecture in found if architecture and not mismatch(architecture, state)]


def dotted_names(keys: Collection[str]) -> dict[str, str]:
    """Key → the parameter's name, for the keys of a registered model that have lost their dots; empty if of none.

    Of the models that fit, the largest: those with a hyperprior have all parts of those without.
    """
    known = ({key.replace(".", ""): key for key in _marked(name)} for name in SUPPORTED)
    return max((names for names in known if names.keys() <= set(keys)), key=len, default={})


def check_name(name: str) -> None:
    """``ModelError`` unless this is the name of a model that is supported."""
    if name not in SUPPORTED:
        raise ModelError(
            f"unknown model {name!r}: choose one of {', '.join(sorted(SUPPORTED))}, "
            "or a class of your own as package.module:Class"
        )


def mismatch(architecture: Architecture, state: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from being this model's, in a few words; empty if it fits."""
    return differences(architecture.build(), state)


def differences(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """The parameters that one has and the other lacks, or has in another shape, in a few words; empty if none."""
    wanted = {key: value.shape for key, value in model.named_parameters()}
    buffers = {key for key, _ in model.named_buffers()}
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted and key not in buffers and not _is_table(key)]
    others = [
        f"{key} of {_shape(state[key].shape)} instead of {_shape(shape)}"
        for key, shape in wanted.items()
        if key in state and state[key].shape != shape
    ]
    said = [("lacks", missing), ("holds also", unknown), ("has", others)]
    return "; ".join(f"{word} {_listed(keys)}" for word, keys in said if keys)


def closest(state: Mapping[str, Tensor], name: str | None = None) -> str:
    """Why a state dict fits no model, or not the one that is named."""
    hint = _known_layout(state)
    if hint:
        return hint
    names = [name] if name else list(SUPPORTED)
    least = min(_unlike(known, state) for known in names)
    tried = [found for known in names if _unlike(known, state) == least and (found := _widths(known, state))]
    if not tried:
        return f"its tensors are not those of {name}" if name else "its tensors are those of no known model"
    said = {str(found): mismatch(found, state) for found in tried}
    nearest = min(said, key=lambda found: len(said[found]))
    return f"compared with {nearest} it {said[nearest]}"


@cache
def _marked(name: str) -> dict[str, Size]:
    """The shapes of the parameters of the small model."""
    names = [width for width in _MARKS if width in inspect.signature(MODELS[name].__init__).parameters]
    arguments: dict[str, Any] = {width: _MARKS[width] for width in names}
    if name == ELIC:
        arguments["groups"] = [4, 4, 8, 8, _MARKS["M"] - 24]
    return {key: value.shape for key, value in Architecture(name, arguments).build().named_parameters()}


def _unlike(name: str, state: Mapping[str, Tensor]) -> int:
    """How many parameters only one of both has, by name; ELIC's groups may be more or fewer."""
    ours, theirs = set(_marked(name)), {key for key in state if not _is_table(key)}
    if name == ELIC:
        ours, theirs = ({re.sub(r"\.y\d+\.", ".y.", key) for key in keys} for keys in (ours, theirs))
    return len(ours ^ theirs)


def _widths(name: str, state: Mapping[str, Tensor]) -> Architecture | None:
    """The model with the widths that the state dict shows; None where it shows none."""
    if name == ELIC:
        return _elic(state)
    widths: dict[str, int] = {}
    for key, shape in _marked(name).items():
        for width, mark in _MARKS.items():
            if width not in widths and mark in shape and key in state and state[key].dim() == len(shape):
                widths[width] = state[key].shape[shape.index(mark)]
    return _buildable(Architecture(name, {width: widths[width] for width in _MARKS if width in widths}))


def _elic(state: Mapping[str, Tensor]) -> Architecture | None:
    groups: list[int] = []
    while (key := f"latent_codec.y.latent_codec.y{len(groups)}.context_prediction.weight") in state:
        groups.append(state[key].shape[1])
    first = state.get("g_a.0.weight")
    if not groups or first is None or first.dim() != 4:
        return None
    return _buildable(Architecture(ELIC, {"N": first.shape[0], "M": sum(groups), "groups": groups}))


def _buildable(architecture: Architecture) -> Architecture | None:
    try:
        architecture.build()
    except (AssertionError, TypeError, ValueError, RuntimeError, IndexError, ZeroDivisionError):
        return None
    return architecture


def _is_table(key: str) -> bool:
    """Whether a tensor follows from others: what ``update()`` makes, and constants of the layers."""
    ends = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table", "scale_bound", "target", "bound", "pedestal")
    return key.endswith((*ends, "mask"))


# --- layouts of other programs ------------------------------------------------------------------------------

_LAYOUTS = (
    (r"lrp_transforms\.", "TCM or another model with latent residual prediction (lrp_transforms)"),
    (r"cc_transforms\.|cc_mean_transforms\.", "a channel-wise model of another layout (cc_transforms)"),
    (r"(?:^|\.)attn\.|relative_position", "a model with attention over windows"),
    (r"ParamAggregation\.|sc_transforms\.", "a space-channel model of another layout than CompressAI's ELIC"),
    (r"vr_entbttlnck|Gain|gain_unit|InverseGain", "a model of variable rate"),
)


def _known_layout(state: Mapping[str, Tensor]) -> str:
    found = [said for pattern, said in _LAYOUTS if any(re.search(pattern, key) for key in state)]
    parts = sorted({key.partition(".")[0] for key in state})
    return f"these look like {found[0]}, which is not supported; its parts are {', '.join(parts[:12])}" if found else ""


def _shape(shape: Size) -> str:
    return "x".join(map(str, shape)) or "a number"


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
