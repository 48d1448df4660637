"""Which family a model belongs to, and where its parts are: by how its ``forward`` connects them, not by its class.

    y = g_a(x)      ẑ = entropy_bottleneck(h_a(y))      p = h_s(ẑ)      x̂ = g_s(ŷ)

    factorized              ŷ = entropy_bottleneck(y); no h_a, h_s
    scale-hyperprior        σ = p; h_a may read |y|
    mean-scale-hyperprior   σ, μ = p
    autoregressive          σ, μ = entropy_parameters([p, context_prediction([y])])
    checkerboard            CompressAI's CheckerboardLatentCodec
    channel-groups          CompressAI's ChannelGroupsLatentCodec of CheckerboardLatentCodec

The last two are coded pass by pass; there CompressAI's own modules say what the dataflow is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from torch import nn

from licquant.config import (
    AUTOREGRESSIVE,
    CHANNEL_GROUPS,
    CHECKERBOARD,
    FACTORIZED,
    FAMILIES,
    MEAN_SCALE_HYPERPRIOR,
    SCALE_HYPERPRIOR,
)
from licquant.errors import ModelError
from licquant.models.expressions import module_calls

_TRANSFORMS = ("g_a", "g_s")
_HYPER = (*_TRANSFORMS, "h_a", "h_s")
_CONTEXT = ("context_prediction", "entropy_parameters")


@dataclass(frozen=True, eq=False)
class Structure:
    """What a model is made of.

    parts:       part name → path of its module in the model
    bottleneck:  entropy model of z, or of y where there is no z
    conditional: entropy model of y given its parameters; None for the factorized family
    absolute:    whether h_a reads |y| (Ballé 2018) rather than y
    """

    family: str
    parts: dict[str, str]
    bottleneck: EntropyBottleneck
    conditional: GaussianConditional | None
    absolute: bool = False


def recognise(model: nn.Module) -> Structure:
    """The structure of a model in eval mode; ``ModelError`` says what is not supported."""
    name = type(model).__name__
    missing = [part for part in _TRANSFORMS if not isinstance(getattr(model, part, None), nn.Module)]
    if missing:
        raise ModelError(f"{name} has no part {missing[0]}: models have g_a, g_s, and most h_a and h_s")
    try:
        calls = module_calls(model, _role)
    except Exception as error:  # control flow that depends on data, and the like
        raise ModelError(f"{name}: its forward cannot be traced: {' '.join(str(error).split())[:120]}") from error
    codec = getattr(model, "latent_codec", None)
    if isinstance(codec, HyperpriorLatentCodec):
        if calls.get("g_s") != ("g_s", ("item", ("latent_codec", ("g_a", "x")), "y_hat")):
            raise ModelError(f"{name}: its latent_codec must stand between g_a and g_s")
        return _of_latent_codec(codec)
    structure = _of_forward(model, calls)
    if structure is None:
        raise ModelError(
            f"{name}: its parts ({', '.join(sorted(calls)) or 'none'}) are not connected as in one of the families "
            f"{', '.join(FAMILIES)}"
        )
    return structure


# --- models whose forward connects the parts ----------------------------------------------------------------


def _role(module: nn.Module, path: str) -> str:
    """What a module is called in expressions: its path, but for the entropy models, which may have any."""
    if isinstance(module, EntropyBottleneck):
        return "bottleneck"
    return "conditional" if isinstance(module, GaussianConditional) else path


def _of_forward(model: nn.Module, calls: dict[str, Any]) -> Structure | None:
    bottleneck = next((m for m in model.modules() if isinstance(m, EntropyBottleneck)), None)
    conditional = next((m for m in model.modules() if isinstance(m, GaussianConditional)), None)
    if bottleneck is None:
        return None
    y = ("g_a", "x")
    if set(calls) == {*_TRANSFORMS, "bottleneck"}:
        fits = calls["g_s"] == ("g_s", ("item", ("bottleneck", y), 0))
        return Structure(FACTORIZED, _in_place(_TRANSFORMS), bottleneck, None) if fits else None
    for absolute in (False, True):
        z = ("h_a", ("abs", y) if absolute else y)
        parameters = ("h_s", ("item", ("bottleneck", z), 0))
        both = ("entropy_parameters", ("cat", parameters, ("context_prediction", ("round", y))))
        for family, parts, gaussian in (
            (SCALE_HYPERPRIOR, _HYPER, (parameters,)),
            (MEAN_SCALE_HYPERPRIOR, _HYPER, _halves(parameters)),
            (AUTOREGRESSIVE, (*_HYPER, *_CONTEXT), _halves(both)),
        ):
            coded = ("conditional", y, *gaussian)
            known = set(calls) == {*parts, "bottleneck", "conditional"}
            if known and calls["conditional"] == coded and calls["g_s"][1] in _latents(y, coded, gaussian):
                return Structure(family, _in_place(parts), bottleneck, conditional, absolute)
    return None


def _in_place(parts: tuple[str, ...]) -> dict[str, str]:
    return {part: part for part in parts}


def _halves(parameters: Any) -> tuple[Any, Any]:
    """σ and μ."""
    return tuple(("item", ("chunk", parameters, 2, 1), half) for half in (0, 1))  # type: ignore[return-value]


def _latents(y: Any, coded: Any, gaussian: tuple[Any, ...]) -> list[Any]:
    """What g_s may read: models estimate ŷ in several ways, the codec has only one."""
    shifted = [("add", ("round", ("sub", y, mean)), mean) for mean in gaussian[1:]]
    return [("item", coded, 0), ("round", y), *shifted]


# --- models with CompressAI's latent codecs -----------------------------------------------------------------


def _of_latent_codec(codec: HyperpriorLatentCodec) -> Structure:
    hyper, latent = codec.hyper, codec.y
    if type(hyper) is not HyperLatentCodec:
        raise ModelError(f"latent_codec.hyper: a {type(hyper).__name__} is not supported")
    parts = {
        **_in_place(_TRANSFORMS),
        "h_a": "latent_codec.hyper.h_a",
        "h_s": "latent_codec.hyper.h_s",
    }
    if isinstance(latent, ChannelGroupsLatentCodec):
        conditional = _channel_groups(latent, parts)
        return Structure(CHANNEL_GROUPS, parts, hyper.entropy_bottleneck, conditional)
    conditional = _checkerboard(latent, "latent_codec.y")
    parts |= {name: f"latent_codec.y.{name}" for name in _CONTEXT}
    return Structure(CHECKERBOARD, parts, hyper.entropy_bottleneck, conditional)


def _checkerboard(codec: nn.Module, path: str) -> GaussianConditional:
    """The Gaussian of a checkerboard codec; ``ModelError`` unless it is one, with even anchors, that gives σ, μ."""
    if type(codec) is not CheckerboardLatentCodec:
        raise ModelError(f"{path}: a {type(codec).__name__} is not supported")
    if codec.anchor_parity != "even":
        raise ModelError(f"{path}: checkerboards with odd anchors are not supported")
    inner: Any = codec.y
    if type(inner) is not GaussianConditionalLatentCodec or not isinstance(inner.entropy_parameters, nn.Identity):
        raise ModelError(f"{path}.y: must be a GaussianConditionalLatentCodec without entropy parameters of its own")
    if inner.chunks != ("scales", "means"):
        raise ModelError(f"{path}.y: its parameters must be scales, then means")
    conditional = inner.gaussian_conditional
    assert isinstance(conditional, GaussianConditional)
    return conditional


def _channel_groups(codec: ChannelGroupsLatentCodec, parts: dict[str, str]) -> GaussianConditional:
    """Adds the parts of every group; the Gaussian is the same for all."""
    path = "latent_codec.y"
    altered = {"merge_y", "merge_params", "_get_ctx_params"} & set(vars(codec))
    if type(codec) is not ChannelGroupsLatentCodec or altered:
        raise ModelError(f"{path}: channel groups that do not read all groups before them are not supported")
    for k in range(len(codec.groups)):
        group = f"{path}.latent_codec.y{k}"
        conditional = _checkerboard(codec.latent_codec[f"y{k}"], group)
        if k:
            parts[f"channel_context.y{k}"] = f"{path}.channel_context.y{k}"
        parts[f"spatial_context.y{k}"] = f"{group}.context_prediction"
        parts[f"entropy_parameters.y{k}"] = f"{group}.entropy_parameters"
    return conditional
