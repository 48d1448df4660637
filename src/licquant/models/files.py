"""Any file that is brought as a checkpoint, read to plain data: mappings, lists, numbers, text and tensors.

Nothing in a file is ever run. PyTorch's own restricted reader rebuilds tensors and the classes listed here, which hold
data and do nothing; a file that names any other class is refused by that name, with the Python that converts it.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from licquant.errors import ModelError
from licquant.models.small import from_small, is_small


class Inert:
    """What stands for an object whose class is not to be had, or not to be run: the data that it holds."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = list(arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _list(*_: Any) -> list[Any]:
    return []


def _dict(*_: Any) -> dict[Any, Any]:
    """A dictionary with a default is read as one without."""
    return {}


def _named(kind: Any, *names: str) -> list[Any]:
    return [(kind, name) for name in names]


# Plain data by the names that pickles have for it; subclasses of dictionaries and lists are read as those.
_BUILTINS = (dict, list, tuple, set, frozenset, int, float, bool, str, complex, bytearray, slice, range)
_NUMPY = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
_LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
_PLAIN: list[Any] = [
    *(Namespace, SimpleNamespace, date, datetime, time, timedelta, timezone, np.ndarray, np.dtype),
    *(pair for kind in _BUILTINS for pair in _named(kind, f"builtins.{kind.__name__}", f"__builtin__.{kind.__name__}")),
    *_named(PurePosixPath, "pathlib.PosixPath", "pathlib._local.PosixPath"),
    *_named(PureWindowsPath, "pathlib.WindowsPath", "pathlib._local.WindowsPath"),
    *_named(_list, "collections.deque"),
    *_named(_dict, "collections.defaultdict"),
    *(type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OMm"),
    *((call, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, call in _NUMPY.items()),
    *(pair for package in _LIGHTNING for pair in _named(dict, f"{package}.utilities.parsing.AttributeDict")),
]
# Of these libraries, whatever a file names: configurations, read without the library as what they hold.
_INERT = ("omegaconf.", "typing.")


def read_file(path: Path) -> Any:
    """What a checkpoint file holds, tensors on the CPU, in a PyTorch, safetensors or small file.

    Raises ``ModelError``: for a file of another kind, which it names, and for one that could run code.
    """
    kind = _kind(path)
    if kind is not None:
        raise ModelError(f"{path}: is {kind}")
    try:
        if is_small(path):
            return from_small(path.read_bytes())
        if _is_safetensors(path):
            return load_file(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors checkpoint that can be read: {_line(error)}") from error
    try:
        with _plain_data(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many kinds
        raise ModelError(_refusal(path, error)) from error


@contextmanager
def _plain_data(path: Path) -> Iterator[None]:
    inert = [(_stand_in(name), name) for name in _classes(path) if name.startswith(_INERT)]
    with _read_as([*_PLAIN, *inert]):
        yield


@contextmanager
def _read_as(known: list[Any]) -> Iterator[None]:
    """Names in files stand for these, and for nothing that other libraries have declared safe: torch_geometric, which
    CompressAI brings along, declares ``defaultdict``, which PyTorch then makes but does not fill."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(known)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _stand_in(name: str) -> Callable[..., Any]:
    return type(name.rpartition(".")[2], (Inert,), {})


def _classes(path: Path) -> list[str]:
    """The classes and functions that a file names, beyond those of every checkpoint; none where it cannot be told."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the oldest format, and what is no checkpoint: the reader itself says more
        return []


def _refusal(path: Path, error: Exception) -> str:
    with _read_as(_PLAIN):
        blocked = [name for name in _classes(path) if not name.startswith(_INERT)]
    named = re.search(r"GLOBAL (\S+)|but got <class '(\S+)'>", str(error))
    if not blocked and named:
        blocked = [named[1] or named[2]]
    if not blocked:
        return f"{path}: not a PyTorch checkpoint that can be read safely"
    read = f'c = torch.load("{path.name}", map_location="cpu", weights_only=False)'
    new = f'"{path.stem}-weights.pt"'
    if any(name.startswith(("torch.nn.modules.", "compressai.")) for name in blocked):
        others = [name for name in blocked if not name.startswith("torch.")]
        return (
            f"{path}: is a whole model, made by torch.save(model) ({(others or blocked)[0]}), which runs code when it "
            f"is read. Where you trust it, save its weights, in Python: {read}; torch.save(c.state_dict(), {new})"
        )
    return (
        f"{path}: holds objects of {', '.join(blocked[:3])}, which are not read from files, since that can run code. "
        f'Where you trust it, save its weights alone, in Python: {read}; torch.save(c["state_dict"], {new}), '
        "or whatever key holds the weights"
    )


# --- files of other kinds -----------------------------------------------------------------------------------

_SAVE = "save the model's weights instead, with torch.save(model.state_dict(), …)"
_HEADS = {
    b"\x89HDF": f"an HDF5 file, as Keras writes: {_SAVE}",
    b"\x93NUMPY": f"an array of NumPy: {_SAVE}",
    b"\x1f\x8b": "compressed: unpack it first",
    b"LICQ": "no FP32 checkpoint but a quantized model",
}


def _kind(path: Path) -> str | None:
    """What a file is that is no checkpoint, and what to bring in its place; None for all others."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    for start, kind in _HEADS.items():
        if head.startswith(start):
            return kind
    # Protocol buffer: field 1, the version of its form, then its producer or domain, its graph.
    if head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return f"an ONNX model: {_SAVE}"
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    return None


def _kind_of_archive(path: Path) -> str | None:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError, ValueError):
        return None  # the reader says so
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        return "a TorchScript model: save its weights instead: torch.save(torch.jit.load(…).state_dict(), …)"
    if any(name.endswith((".json", ".dat")) and "archive" in name for name in names) and not any(
        name.endswith("/data.pkl") for name in names
    ):
        return f"an exported program of PyTorch: {_SAVE}"
    if names and all(name.endswith(".npy") for name in names):
        return f"an archive of NumPy's arrays: {_SAVE}"
    return None


def _is_safetensors(path: Path) -> bool:
    """The format has no magic number: a length of eight bytes, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return head[8:] == b"{" and length <= path.stat().st_size - 8


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
