"""The one mapping of tensors in a checkpoint that is a model's state dict, wherever it stands and whatever precedes it.

Everything that a file holds is laid out flat, under dotted names; a state dict is what follows a common prefix:

    {"trainer": {"ema": {"module.g_a.0.weight": …}}}   →   trainer.ema.module.g_a.0.weight   →   g_a.0.weight

So a nesting and a prefix are one thing, and no list says how training programs call theirs: a prefix is right if what
follows it has the parts that every model has. Older releases of CompressAI named some tensors otherwise; they get
their names of today.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from compressai.zoo import load_state_dict
from torch import Tensor

from licquant.errors import ModelError
from licquant.models.files import Inert, read_file
from licquant.models.recognize import dotted_names
from licquant.models.shards import checkpoint_files, merge_shards

State = dict[str, Tensor]

_PARTS = ("g_a", "g_s")
# Modules that stand around another one and have its function: DataParallel's, those of torch.compile, FSDP, DeepSpeed.
_WRAPPERS = re.compile(r"(?<![^.])(?:module|_\w+_mod(?:ule)?)\.")
_OLD_NAMES = {"_matrix": "matrices.", "_bias": "biases.", "_factor": "factors."}
_SHOWN = 12


def read_state(checkpoint: str | Path) -> State:
    """The state dict of a checkpoint, in one file or in shards, floating-point tensors widened to float32.

    Only data are read, never pickled code (``files``). Raises ``ModelError`` if a file is missing, if it holds none or
    several state dicts, if a weight is not finite, or if the shards are not one whole set.
    """
    found = read_states(checkpoint)
    if len(found) > 1:
        raise several(checkpoint, list(found))
    return next(iter(found.values()))


def read_states(checkpoint: str | Path) -> dict[str, State]:
    """Every state dict in a checkpoint that might be a model's, by where it stands; errors as ``read_state``."""
    record = merge_shards(dict(_flat(read_file(path))) for path in checkpoint_files(Path(checkpoint)))
    found = {prefix: _renamed(state) for prefix, state in (_candidates(record) or _dotless(record)).items()}
    if not found:
        keys = sorted({".".join(key.split(".")[:2]) for key in record})
        held = f"it holds {_listed(keys)}" if keys else "it holds no tensors that have names"
        raise ModelError(f"{checkpoint}: holds no state dict of a model with the parts g_a and g_s: {held}")
    for state in found.values():
        broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
        if broken:
            raise ModelError(f"{checkpoint}: {broken[0]} holds values that are not finite")
    return found


def several(checkpoint: str | Path, prefixes: list[str]) -> ModelError:
    """The error for weights that stand in several places, all of which would do."""
    places = _listed([prefix.rstrip(".") or "the top" for prefix in prefixes])
    return ModelError(
        f"{checkpoint}: holds the weights of several models, under {places}: keep one, in Python: "
        f'c = torch.load("{Path(checkpoint).name}", map_location="cpu"); torch.save(c[…], "one.pt")'
    )


def _flat(value: Any, path: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of every tensor at any depth; arrays of numbers count as tensors."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
    if isinstance(value, Tensor):
        if path:
            yield path, value
        return
    if isinstance(value, Namespace | SimpleNamespace):
        value = vars(value)
    elif isinstance(value, Inert):
        value = {**vars(value)}
    elif isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or id(value) in seen:
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{path}.{key}" if path else str(key), seen | {id(value)})


def _candidates(record: Mapping[str, Tensor]) -> dict[str, State]:
    """Prefix → what follows it, for every prefix that all parts follow; the same tensors count once."""
    starts = re.compile(r"(?:^|\.)(?=(?:" + "|".join(_PARTS) + r")\.)")
    prefixes = {key[: match.end()] for key in record for match in starts.finditer(key)}
    found: dict[str, State] = {}
    for prefix in sorted(prefixes, key=lambda p: (len(p), p)):
        state = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
        # An optimizer's moments have their parameters' names too, but with a word behind.
        is_model = all(any(key.startswith(f"{part}.") and key.endswith(".weight") for key in state) for part in _PARTS)
        if is_model and not any(_equal(state, other) for other in found.values()):
            found[prefix] = state
    return found


def _dotless(record: Mapping[str, Tensor]) -> dict[str, State]:
    """The same for names that have lost their dots, as LitEma's average has them: model_ema.g_a0weight."""
    found: dict[str, State] = {}
    for prefix in {match[1] for key in record if (match := re.match(r"(.*?)g_a\w*$", key))}:
        state = {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
        if names := dotted_names(state):
            found[prefix] = {name: state[key] for key, name in names.items()}
    return found


def _equal(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in state.items())


def _renamed(state: State) -> State:
    """Names of today's CompressAI, float32."""
    renamed: State = {}
    for key, value in load_state_dict(state).items():
        head, dot, name = _WRAPPERS.sub("", key).rpartition(".")
        match = re.fullmatch(r"(_matrix|_bias|_factor)(\d)", name)
        if match:
            name = _OLD_NAMES[match[1]] + match[2]
        elif head.endswith(("._matrices", "._biases", "._factors")):
            head = head.replace("._", ".")
        renamed[head + dot + name] = value.float() if value.is_floating_point() else value
    return renamed


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else "")
