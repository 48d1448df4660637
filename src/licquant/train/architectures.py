"""CompressAI's image models by their registered names, built afresh or from a state dict."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import compressai.models  # noqa: F401  (fills the registry)
import torch
from compressai.registry import MODELS
from torch import Tensor, nn

from licquant.errors import ModelError
from licquant.models.load import TABLES
from licquant.models.recognize import architectures_of
from licquant.train import seeds

# Where a class has no default: the widths of CompressAI's models for low and middle rates.
USUAL_WIDTHS = {"N": 128, "M": 192}

# Where g_a's last convolution, which has M outputs, stands: ELIC's, the others'.
_LAST_OF_ANALYSIS = ("g_a.13.weight", "g_a.6.weight")

# Agrees between models that have only their width N in common: alone it is nothing to start from.
_BOTTLENECK = "entropy_bottleneck"

# Not one image at one rate: other data, or losses over a whole range of λ.
_OTHER_KINDS = (".pointcloud", ".video", ".vbr")


def names() -> list[str]:
    """The registered names of the models that can be trained here, sorted."""
    return sorted(name for name, kind in MODELS.items() if not any(k in kind.__module__ for k in _OTHER_KINDS))


def resolve_widths(name: str, N: int | None, M: int | None) -> dict[str, int]:
    """The widths that the model ``name`` takes, with the usual ones where None is given.

    Raises ``ModelError`` for an unknown name, or for a width that the model does not have.
    """
    if name not in names():
        raise ModelError(f"unknown model {name!r}; those that can be trained are {', '.join(names())}")
    parameters = inspect.signature(MODELS[name].__init__).parameters
    widths = {}
    for width, wanted in (("N", N), ("M", M)):
        if width not in parameters:
            if wanted is not None:
                raise ModelError(f"{name} has no width {width}")
            continue
        default = parameters[width].default
        widths[width] = wanted or (USUAL_WIDTHS[width] if default is inspect.Parameter.empty else default)
    return widths


def build(name: str, widths: Mapping[str, int], seed: int = 0) -> Any:
    """The model ``name`` with fresh weights, a function of ``seed``; ``widths`` from ``resolve_widths``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.mix(seeds.WEIGHTS, seed))
        try:
            return MODELS[name](**widths)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ModelError(f"{name} cannot be built with {dict(widths)}: {_first_line(error)}") from error


def widths_of(name: str, state: Mapping[str, Tensor], N: int | None, M: int | None) -> dict[str, int]:
    """The widths of a state dict's model, read from its shapes unless N or M say otherwise."""
    widths = resolve_widths(name, N, M)
    first = state.get("g_a.0.weight", state.get("g_a.0.conv1.weight"))
    latent = next((state[key] for key in _LAST_OF_ANALYSIS if key in state), None)
    if "N" in widths and N is None and first is not None:
        widths["N"] = first.shape[0]
    if "M" in widths and M is None and latent is not None:
        widths["M"] = latent.shape[0]
    return widths


def load_weights(model: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Put a state dict into ``model``, its tables made anew; ``ModelError`` if it does not fit."""
    tables = {key: value for key, value in model.state_dict().items() if key.endswith(TABLES)}
    weights = {key: value for key, value in state.items() if not key.endswith(TABLES)}
    try:
        nn.Module.load_state_dict(model, weights | tables)
        model.update(force=True)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"{source}: its weights do not fit the model: {_first_line(error)}") from error


@dataclass(frozen=True)
class Start:
    """What a model took over from a checkpoint: its parts (``g_a``, ``h_s``, …) that did, that are ``new``, and parts
    of the checkpoint that were ``left``."""

    taken: tuple[str, ...]
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the checkpoint is this model's own."""
        return not (self.new or self.left)

    def __str__(self) -> str:
        rest = (("new", self.new), ("left", self.left))
        return "; ".join([", ".join(self.taken), *(f"{word}: {', '.join(parts)}" for word, parts in rest if parts)])


def start_from(model: Any, state: Mapping[str, Tensor], source: str) -> Start:
    """Put a state dict into ``model``, or of another registered model's those parts that agree by name and shape.

    A part is taken over as a whole or not at all: half of one is worth no more than a fresh one. ``ModelError`` if no
    part but the entropy bottleneck agrees, or for weights that are no whole model's.
    """
    own = {name: value.shape for name, value in model.named_parameters()}
    agreeing = {name for name, shape in own.items() if name in state and state[name].shape == shape}
    parts = dict.fromkeys(map(_part, own))
    new = tuple(dict.fromkeys(_part(name) for name in own if name not in agreeing))
    taken = tuple(part for part in parts if part not in new)
    left = tuple(dict.fromkeys(part for part in map(_part, state) if part not in dict(model.named_children())))
    start = Start(taken, new, left)
    if start.whole or not set(taken) - {_BOTTLENECK} or not architectures_of(dict(state)):
        load_weights(model, state, source)
        return Start(tuple(parts))
    load_weights(model, model.state_dict() | {name: state[name] for name in own if _part(name) in taken}, source)
    return start


def _part(name: str) -> str:
    return name.partition(".")[0]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
