"""A model class of the user's own, named on the command line as ``package.module:Class``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from licquant.config import parse_json
from licquant.errors import ModelError


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
