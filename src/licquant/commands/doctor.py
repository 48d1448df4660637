"""``licquant doctor``: what a report of a problem needs to say of a machine, and whether all is well on it.

No name of a person, a host or a folder is told: people paste it where everybody reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.model_search import VARIABLE, embedded
from licquant.errors import LicquantError
from licquant.evaluate import provenance
from licquant.program import openvino_engine
from licquant.terminal import say

# Of the environment: those whose values are numbers or words, and those that are folders, of which only that they are.
_TOLD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA")
_FOLDERS = (VARIABLE, "LICQUANT_CACHE")
_PACKAGE = Path(__file__).parents[1]  # the only folder of whose files these checks can complain
_SIDE = 96  # pixels of the picture that is coded


def run() -> Report:
    """Every check, whatever becomes of the others; its status is 1 if one failed."""
    checks = {"openvino": _devices, "kernels": _kernels, "embedded models": _embedded, "round trip": _round_trip}
    results = {name: _tried(check) for name, check in checks.items()}
    set_here = {name: os.environ[name] for name in _TOLD if name in os.environ}
    record: dict[str, Any] = {
        "versions": {**provenance.versions(), "pillow": provenance.version("pillow")},
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "environment": {**set_here, **{name: "(set)" for name in _FOLDERS if os.environ.get(name)}},
        "checks": results,
        "well": all(result["ok"] for result in results.values()),
    }
    return Report(record, lambda: _show(record), status=int(not record["well"]))


def versions_in_one_line() -> str:
    """licquant's version, and those of what it codes with."""
    found = provenance.versions()
    engines = ", ".join(f"{name} {found[name] or 'missing'}" for name in ("openvino", "constriction", "numpy"))
    return f"licquant {found['licquant']} ({engines}, Python {provenance.machine()['python']})"


def _tried(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a check found; of an error that is not ours only the kind, since its text may name folders."""
    try:
        return {"ok": True, **check()}
    except LicquantError as error:
        return {"ok": False, "error": str(error).replace(str(_PACKAGE), _PACKAGE.name)}
    except Exception as error:  # whatever a broken library does
        return {"ok": False, "error": type(error).__name__}


def _devices() -> dict[str, Any]:
    return {**openvino_engine.description(), "devices": openvino_engine.devices()}


def _kernels() -> dict[str, Any]:
    machine = openvino_engine.machine()
    sums = {kind: found.value for kind, found in machine.sums().items()}
    return {"used": machine.used, "int8": sums, "self_test_ms": round(1000 * machine.seconds)}


def _embedded() -> dict[str, Any]:
    return {"count": len(embedded())}


def _round_trip() -> dict[str, Any]:
    """The symbols that are decoded are those that were encoded; pixels differ a little between engines."""
    models = embedded()
    if not models:
        return {"skipped": "there is no embedded model"}
    codec, exact = (load(models[0], engine=engine) for engine in ("openvino", "exact"))
    rgb = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    data, latents = codec.encode(rgb), codec.analyse(rgb)
    decoded = exact.decode_symbols(data)
    if not (np.array_equal(decoded.y, latents.y) and np.array_equal(decoded.z, latents.z)):
        raise LicquantError("the symbols that were decoded are not those that were encoded")
    off = np.abs(codec.decode(data).astype(int) - exact.decode(data))
    return {"bytes": len(data), "pixels_off_by_at_most": int(off.max())}


def _show(record: dict[str, Any]) -> None:
    machine = record["machine"]
    say(versions_in_one_line() + (f", commit {record['commit']}" if record["commit"] else ""))
    versions = record["versions"]
    say(", ".join(f"{name} {versions[name] or 'not installed'}" for name in ("pillow", "torch", "compressai")))
    of_memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    say(f"{machine['cpu']}, {machine['cores']} cores{of_memory}, {machine['os']}")
    for name, value in record["environment"].items():
        say(f"{name}={value}")
    for name, result in record["checks"].items():
        found = {key: value for key, value in result.items() if key not in ("ok", "int8")}
        odd = [f"{kind}: {sums}" for kind, sums in result.get("int8", {}).items() if sums != "exact"]
        told = ", ".join([*(f"{key.replace('_', ' ')} {value}" for key, value in found.items()), *odd])
        say(f"{'well' if result['ok'] else 'FAILED'}  {name}: {told}")
