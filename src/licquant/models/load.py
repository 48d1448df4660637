"""Checkpoints in: a model with the weights of a file, whatever program wrote it.

Or a class of the user's own, named on the command line as ``package.module:Class``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressai.models.base import get_scale_table
from torch import Tensor, nn

from licquant.config import parse_json
from licquant.errors import ModelError
from licquant.models.elic import reimplementation
from licquant.models.recognize import (
    SUPPORTED as SUPPORTED,
)
from licquant.models.recognize import Architecture, architectures_of, check_name, closest, differences, mismatch
from licquant.models.state_dicts import State, read_states, several
from licquant.models.state_dicts import read_state as read_state

TABLES = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table")  # what ``update()`` makes


def load_model(name: str | None, checkpoint: str | Path, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The model in a checkpoint, in eval mode, on the CPU, its coding tables up to date.

    name:      CompressAI's registered name, or ``package.module:Class`` for a class of the user's own; None: the
               registered model whose weights these are
    arguments: of its constructor; of a registered model, the widths, which the weights show otherwise

    The weights may stand anywhere in the file under any common prefix (``state_dicts``), in any floating-point type,
    in one file or in shards (``shards``). Raises ``ModelError`` for an unknown name, an unreadable file or weights
    that do not fit; it says what they look like.
    """
    model: Any
    if name is not None and is_own(name):
        model = build_own(name, arguments or {})
        states = read_states(checkpoint)
        fits = {prefix: state for prefix, state in states.items() if not differences(model, state)}
        state = _only(checkpoint, fits, lambda: f"{name} does not fit: it {differences(model, _first(states))}")
    else:
        architecture, state = _found(name, checkpoint, arguments)
        model = architecture.build()
    _fill(model, state)
    return model


def model_name(name: str | None, checkpoint: str | Path) -> str:
    """The name as given, else that of the registered model whose weights the checkpoint holds; errors as above."""
    return name if name is not None else _found(None, checkpoint, None)[0].name


def _found(name: str | None, checkpoint: str | Path, arguments: Mapping[str, Any] | None) -> tuple[Architecture, State]:
    if name is not None:
        check_name(name)
    states = read_states(checkpoint)
    theirs = {prefix: one for prefix, state in states.items() if (one := reimplementation(state))}
    states |= {prefix: state for prefix, (_, state) in theirs.items()}
    found = {prefix: fitting for prefix, state in states.items() if (fitting := architectures_of(state))}
    found |= {prefix: [architecture] for prefix, (architecture, _) in theirs.items()}
    if arguments and name is not None:
        chosen = Architecture(name, arguments)
        found = {prefix: [chosen] for prefix, state in states.items() if not _mismatch(chosen, state)}
    fits = {
        prefix: next(a for a in fitting if name in (None, a.name))
        for prefix, fitting in found.items()
        if name is None or name in [a.name for a in fitting]
    }
    if not fits and found and name is not None:
        raise ModelError(f"{checkpoint}: these look like {_first(found)[0]}, not {name}")
    prefix = next(iter(fits), "")
    state = _only(checkpoint, {p: states[p] for p in fits}, lambda: closest(_first(states), name))
    return fits[prefix], state


def _mismatch(architecture: Architecture, state: State) -> str:
    try:
        return mismatch(architecture, state)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(f"{architecture.name} cannot be built with {dict(architecture.arguments)}: {error}") from error


def _only(checkpoint: str | Path, fits: Mapping[str, State], why: Any) -> State:
    if len(fits) > 1:
        raise several(checkpoint, list(fits))
    if not fits:
        raise ModelError(f"{checkpoint}: its weights do not fit: {why()}")
    return _first(fits)


def _first(mapping: Mapping[str, Any]) -> Any:
    return next(iter(mapping.values()))


def _fill(model: Any, state: State) -> None:
    """Weights as stored; tables are made anew, and so are constants that the file lacks."""
    own = model.state_dict()
    stored = {
        key: value
        for key, value in state.items()
        if key in own and value.shape == own[key].shape and not key.endswith(TABLES)
    }
    nn.Module.load_state_dict(model, {**own, **stored})
    model.eval()
    model.update(scale_table=_own_scales(state), force=True)


def _own_scales(state: State) -> Tensor | None:
    """The table of scales that a model was trained for, where it is another than CompressAI's."""
    usual = torch.as_tensor(get_scale_table())
    tables = [value for key, value in state.items() if key.endswith("scale_table") and value.numel()]
    other = [t for t in tables if t.shape != usual.shape or not torch.allclose(t, usual, rtol=1e-3)]
    return other[0] if other else None


def is_own(name: str) -> bool:
    """Whether ``--model`` names a class, ``package.module:Class``, and none of CompressAI's models."""
    return ":" in name


def parse_arguments(text: str | None) -> dict[str, Any]:
    """The arguments of a constructor from a JSON object; ``ModelError`` for anything else."""
    if text is None:
        return {}
    try:
        arguments = parse_json(text)
    except ValueError as error:
        raise ModelError(f"--model-args {text[:60]!r}: not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ModelError(f'--model-args {text[:60]!r}: write a JSON object, for instance {{"N": 128}}')
    return arguments


def build_own(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """An object of the class; modules in the current folder are found too. ``ModelError`` in one line."""
    module_name, _, class_name = name.partition(":")
    kind = _class(module_name, class_name)
    try:
        model = kind(**arguments)
    except Exception as error:  # whatever the class raises
        raise ModelError(f"{name}: cannot be built with {dict(arguments)}: {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}: makes no torch.nn.Module")
    for part in ("g_a", "g_s"):
        if not isinstance(getattr(model, part, None), nn.Module):
            raise ModelError(f"{name}: has no part {part}: models have g_a, g_s, and most h_a and h_s")
    for method in ("forward", "update"):
        if not callable(getattr(model, method, None)):
            raise ModelError(f"{name}: has no {method}(): derive it from compressai.models.CompressionModel")
    return model


def _class(module_name: str, class_name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises
        raise ModelError(f"--model {module_name}:{class_name}: cannot be imported: {_line(error)}") from error
    kind = getattr(module, class_name, None)
    if kind is None:
        raise ModelError(f"--model {module_name}:{class_name}: {module_name} has no {class_name}")
    return kind


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
