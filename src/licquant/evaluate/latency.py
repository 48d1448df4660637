"""The latency table of one machine: how long each layer runs at each width, measured (``layer_timing.py``).

What a width costs in time is decided by the kernels, not by the number of bits:

    openvino   INT8 kernels where weights and activations have at most 8 bits; two INT8 products where one of them has
               9 to 14 bits, where kernels are exact; else float32 (for one of 15 or 16 bits, too, which counts as 12)
    exact      float32 products up to some sum of the two widths, then several of them, then float64

so each layer has one time for each of its engine's classes of widths. The table is additive: an encode and a
decode take the sum over the layers plus ``rest_ms``. What was measured about that is in ``check``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from licquant.config import parse_json
from licquant.errors import DataError, ModelError
from licquant.evaluate import provenance
from licquant.images import utf8, write_result

FORMAT, VERSION = "licquant.latency", 1
OPENVINO, EXACT = "openvino", "exact"
NARROW, WIDE = 8, 12  # the widths that stand for OpenVINO's two classes
# Where integer and float kernels differ: the flags of /proc/cpuinfo that are noted down.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm")


@dataclass(frozen=True)
class LayerTimes:
    """One layer: the engine that runs it, and milliseconds for one run by (weight bits, activation bits).

    runs: how often one encode and one decode run it together: twice what both sides need (h_s), else once
    """

    engine: str
    runs: int
    ms: Mapping[tuple[int, int], float]

    def at(self, weight_bits: int | None, activation_bits: int) -> float:
        """Milliseconds in one encode and one decode at these widths; no weights count as narrow ones."""
        return self.runs * self.ms[self._class(weight_bits or NARROW, activation_bits)]

    def _class(self, weight_bits: int, activation_bits: int) -> tuple[int, int]:
        if self.engine == OPENVINO:
            return (NARROW if weight_bits <= NARROW else WIDE, NARROW if activation_bits <= NARROW else WIDE)
        # Bytes apart, for which there may be INT8 kernels. Accumulators grow with the sum of both widths: the next sum
        # that was measured, or the last.
        wanted = (weight_bits, activation_bits)
        alike = [pair for pair in self.ms if _are_bytes(pair) == _are_bytes(wanted)]
        by_sum = sorted(alike or self.ms, key=sum)
        return next((pair for pair in by_sum if sum(pair) >= sum(wanted)), by_sum[-1])


def _are_bytes(widths: tuple[int, int]) -> bool:
    return max(widths) <= NARROW


@dataclass(frozen=True)
class LatencyTable:
    """Measured times of one model's layers on one machine.

    layers:   layer → its times;  rest_ms: everything else of an encode and a decode (layout, coder), file access not
    size:     (width, height) of the image;  threads: of the fast engine, None for its own choice
    geometry: ``models.geometry.geometry_hash`` of the model;  machine: see ``machine``
    check:    measured against predicted times of whole mixed plans
    """

    layers: Mapping[str, LayerTimes]
    rest_ms: float
    size: tuple[int, int]
    threads: int | None
    geometry: str
    machine: Mapping[str, Any]
    check: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def check_fits(self, geometry: str) -> None:
        """``ModelError`` for a table of another model; ``DataError`` for one of another machine than this."""
        if geometry != self.geometry:
            raise ModelError("the latency table was measured with another model: run licquant profile on this one")
        here = machine()
        for key, value in self.machine.items():
            if here.get(key) != value:
                raise DataError(
                    f"the latency table was measured on another machine ({key!r}: {value!r}, here {here.get(key)!r}): "
                    "run licquant profile here"
                )

    def to_json(self) -> dict[str, Any]:
        """What the file holds; ``load`` reads it again."""
        record = {key: value for key, value in vars(self).items() if key != "layers"}
        layers = {
            name: {
                "engine": times.engine,
                "runs": times.runs,
                "ms": [{"weight": w, "activation": a, "ms": ms} for (w, a), ms in times.ms.items()],
            }
            for name, times in self.layers.items()
        }
        return {"format": FORMAT, "version": VERSION, **record, "size": list(self.size), "layers": layers}

    @classmethod
    def from_json(cls, record: Any) -> LatencyTable:
        """``DataError`` for anything but a latency table of a known version."""
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise DataError(f"not a latency table: it lacks the format name {FORMAT}")
        if record.get("version") != VERSION:
            raise DataError(f"a latency table of version {record.get('version')!r}; this licquant reads {VERSION}")
        fields = {key: value for key, value in record.items() if key not in ("format", "version", "layers", "size")}
        try:
            width, height = record["size"]
            layers = {str(name): _times(found) for name, found in record["layers"].items()}
            if not all(isinstance(fields.get(name, {}), dict) for name in ("machine", "check", "provenance")):
                raise TypeError("facts are names and values")
            fields["rest_ms"] = float(fields["rest_ms"])
            return cls(layers, size=(int(width), int(height)), **fields)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"the latency table is damaged: {type(error).__name__}") from error

    def save(self, path: str | Path) -> None:
        """Write the file, at once or not at all."""
        write_result(path, utf8(json.dumps(self.to_json(), indent=1, ensure_ascii=False)) + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """``DataError`` for a file that cannot be read or is no latency table."""
        try:
            return cls.from_json(parse_json(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # not JSON, not UTF-8
            raise DataError(f"{path}: not a latency table: no JSON") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _times(record: Any) -> LayerTimes:
    ms = {(int(e["weight"]), int(e["activation"])): float(e["ms"]) for e in record["ms"]}
    classes = {(w, a) for w in (NARROW, WIDE) for a in (NARROW, WIDE)}
    if record["engine"] not in (OPENVINO, EXACT) or not ms or (record["engine"] == OPENVINO and set(ms) != classes):
        raise ValueError("a layer's classes of widths are incomplete")
    return LayerTimes(record["engine"], int(record["runs"]), ms)


def machine() -> dict[str, Any]:
    """What decides the times here: processor, instruction sets, cores, OpenVINO."""
    facts = provenance.machine()
    return {
        "cpu": facts["cpu"],
        "instruction_sets": _instruction_sets(),
        "cores": facts["cores"],
        "openvino": metadata.version("openvino"),
    }


def _instruction_sets() -> list[str]:
    """Those of ``_INSTRUCTIONS`` that the processor has; none are known outside of Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "").split()
    return [name for name in _INSTRUCTIONS if name in flags]
