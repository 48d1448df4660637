"""The plan (how many bits each layer gets) and the budget (what the plan may cost)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from licquant.errors import BudgetError, ModelError, PlanError

MIN_BITS, MAX_BITS = 2, 16  # of a weight or an activation
MAX_LMBDA = sys.float_info.max

# How latents are coded: the families that a model is recognised as (``models``) and coded by (``codec``).
FACTORIZED = "factorized"
SCALE_HYPERPRIOR = "scale-hyperprior"
MEAN_SCALE_HYPERPRIOR = "mean-scale-hyperprior"
AUTOREGRESSIVE = "autoregressive"
CHECKERBOARD = "checkerboard"
CHANNEL_GROUPS = "channel-groups"
FAMILIES = (FACTORIZED, SCALE_HYPERPRIOR, MEAN_SCALE_HYPERPRIOR, AUTOREGRESSIVE, CHECKERBOARD, CHANNEL_GROUPS)
PLAN_VERSION = 1

OnProgress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody is told of."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ``ValueError`` for any other text, one nested too deeply included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@dataclass(frozen=True)
class LayerBits:
    """Widths of one layer: of its weights (None where it has none, as a sigmoid) and of its input activations."""

    weight: int | None
    activation: int

    def __post_init__(self) -> None:
        for bits in (self.activation, *(() if self.weight is None else (self.weight,))):
            if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS:
                raise PlanError(
                    f"a width of {bits!r:.20} bits: whole numbers from {MIN_BITS} to {MAX_BITS} are supported"
                )


@dataclass(frozen=True)
class Plan(Mapping[str, LayerBits]):
    """Layer path → widths, for every layer of the model: the one object that couples search, quantizer and files.

    A layer is named by its path, e.g. ``g_a.2``; products and sigmoids have an entry too, since their
    inputs are quantized; what is added has bits to spare.
    """

    layers: Mapping[str, LayerBits] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> LayerBits:
        try:
            return self.layers[layer]
        except KeyError:
            raise PlanError(f"the plan lacks layer {layer}") from None

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def check(self, layers: Iterable[str]) -> None:
        """Raise ``PlanError`` unless the plan covers exactly these layers."""
        wanted = set(layers)
        missing, unknown = sorted(wanted - set(self.layers)), sorted(set(self.layers) - wanted)
        if missing:
            raise PlanError(f"the plan lacks {', '.join(missing[:4])}{', …' if len(missing) > 4 else ''}")
        if unknown:
            more = ", …" if len(unknown) > 4 else ""
            raise PlanError(f"the plan names layers that the model lacks: {', '.join(unknown[:4])}{more}")

    def to_json(self) -> dict[str, Any]:
        """What ``plan.json`` holds; ``from_json`` is the inverse."""
        return {
            "format": "licquant.plan",
            "version": PLAN_VERSION,
            "layers": {name: asdict(bits) for name, bits in self.layers.items()},
        }

    @classmethod
    def from_json(cls, record: Any) -> Plan:
        """The plan in a JSON record; ``PlanError`` for anything else or a newer version."""
        if not isinstance(record, dict) or record.get("format") != "licquant.plan":
            raise PlanError("not a plan: it lacks the format name licquant.plan")
        if record.get("version") != PLAN_VERSION:
            raise PlanError(
                f"a plan of version {record.get('version')!r:.20}; this licquant reads version {PLAN_VERSION}"
            )
        layers = record.get("layers")
        if not isinstance(layers, dict) or not layers:
            raise PlanError("the plan holds no layers")
        if not all(map(str.isprintable, layers)):
            raise PlanError("the plan names a layer with characters that cannot be printed")
        try:
            return cls({str(name): LayerBits(**bits) for name, bits in layers.items()})
        except TypeError:
            raise PlanError("a layer of the plan needs exactly the keys weight and activation") from None

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the plan's canonical JSON: names the plan in artifacts, caches and reports."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _shown(value: Any) -> str:
    """A value as one line can hold it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_lmbda(value: Any, where: str = "λ") -> float:
    """λ of a loss R + λ·D as a finite number above 0; ``ModelError``, naming where it stands, for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_LMBDA:
        raise ModelError(f"{where} = {_shown(value)}: must be a finite number above 0")
    return float(value)


BUDGETS = ("bits", "size", "bytes", "bops", "latency", "loss")
FILE_BUDGETS = ("size", "bytes")  # of what is written
RUN_BUDGETS = ("bops", "latency")  # of what running takes: the widths of activations count, too


@dataclass(frozen=True)
class Budget:
    """What a plan may cost: one kind and one value.

    bits: average bits per weight, 2..16        size: fraction of the FP32 bytes, > 0
    bytes: of the artifact                      bops: bit operations per pixel
    latency: milliseconds                       loss: largest increase of the RD loss, as a fraction (0.5 % is 0.005)
    relative: bops and latency as a fraction of what 8 bits everywhere take, weights and activations
    """

    kind: str
    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if self.kind not in BUDGETS:
            raise BudgetError(f"unknown budget {self.kind!r}: choose one of {', '.join(BUDGETS)}")
        if not self.value > 0 or self.value == float("inf"):
            raise BudgetError(f"the budget {self.kind} must be a positive number, not {self.value}")
        if self.kind == "bits" and not MIN_BITS <= self.value <= MAX_BITS:
            raise BudgetError(f"the budget bits must lie in {MIN_BITS}..{MAX_BITS}, not {self.value:g}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``"bits=8"``, ``"size=25%"``, ``"loss=0.5%"``: kind, equals sign, number with an optional per cent sign.

        ``"bops=110%"`` and ``"latency=110%"`` are relative.
        """
        kind, equals, number = text.partition("=")
        percent = number.strip().endswith("%")
        try:
            value = float(number.strip().removesuffix("%"))
        except ValueError:
            value = float("nan")
        if not equals or value != value:
            raise BudgetError(f"cannot read the budget {text!r}: write for instance bits=8 or size=0.25")
        kind = kind.strip()
        return cls(kind, value / 100 if percent else value, percent and kind in RUN_BUDGETS)
