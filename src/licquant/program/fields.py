"""What each operation holds: the one table of its numbers and tensors, with their shapes and ranges.

    operation                name in files, then field by field: a number with its range, or a tensor with its axes
    axes                     out: channels written;  in: channels read;  kernel: a side of 1..64;  values: one for each
                             stored integer of the input

An artifact is read by this table (``codec/files/program.py``), and ``Part`` holds every operation to it before
anything is computed from its tensors. What lies within these ranges cannot overflow on the way to the bound of the
accumulator (``ops.py``), which decides about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from licquant.errors import LoweringError
from licquant.program.arithmetic import (
    INT32_MAX,
    MAX_ACCUMULATOR,
    MAX_BITS,
    MAX_NORM,
    MIN_BITS,
    Ints,
    lies_within,
    weight_range,
)
from licquant.program.grid import MAX_CHANNELS, Grid
from licquant.program.ops import (
    MAX_FACTOR,
    Add,
    Convolution,
    Gdn,
    Gdn1,
    Multiply,
    Operation,
    PixelShuffle,
    Requantize,
    Rescaling,
    Sigmoid,
    TransposedConvolution,
)

MAX_KERNEL = 64  # a side, and so the padding
MAX_STRIDE = 64


@dataclass(frozen=True)
class Number:
    """A whole number in low..high."""

    low: int
    high: int


@dataclass(frozen=True)
class Flag:
    """True or false."""


@dataclass(frozen=True)
class Weights:
    """Integers of these axes within the operation's ``weight_bits``, entropy-coded in files."""

    axes: tuple[str, ...]


@dataclass(frozen=True)
class Integers:
    """A vector along one axis, in low..high."""

    axis: str
    low: int
    high: int


@dataclass(frozen=True)
class OfEachInput:
    """A vector for every tensor that is read."""

    vector: Integers


@dataclass(frozen=True)
class Scaling:
    """A ``Rescaling`` of every channel written; it checks its own ranges."""


Field = Number | Flag | Weights | Integers | OfEachInput | Scaling

_WIDTH = Number(MIN_BITS, MAX_BITS)
_STRIDE, _PADDING = Number(1, MAX_STRIDE), Number(0, MAX_KERNEL)
_BIAS = Integers("out", -MAX_ACCUMULATOR, MAX_ACCUMULATOR)
_MULTIPLIER, _SHIFT = (Integers("out", *limits) for limits in (Rescaling.MULTIPLIERS, Rescaling.SHIFTS))

_GDN: Mapping[str, Field] = {
    "gamma": Weights(("out", "in")),
    "weight_bits": _WIDTH,
    "beta": Integers("out", 0, MAX_NORM),
    "square_bits": _WIDTH,
    "square_multiplier": _MULTIPLIER,
    "square_shift": _SHIFT,
    "multiplier": _MULTIPLIER,
    "shift": _SHIFT,
    "inverse": Flag(),
}

# Operation → its name in a file and its own fields, in the order of the dataclass.
OPERATIONS: Mapping[type[Operation], tuple[str, Mapping[str, Field]]] = {
    Convolution: (
        "convolution",
        {
            "weight": Weights(("out", "in of a group", "kernel", "kernel")),
            "weight_bits": _WIDTH,
            "bias": _BIAS,
            "stride": _STRIDE,
            "padding": _PADDING,
            "groups": Number(1, MAX_CHANNELS),
            "rescaling": Scaling(),
        },
    ),
    TransposedConvolution: (
        "transposed_convolution",
        {
            "weight": Weights(("in", "out", "kernel", "kernel")),
            "weight_bits": _WIDTH,
            "bias": _BIAS,
            "stride": _STRIDE,
            "padding": _PADDING,
            "output_padding": Number(0, MAX_STRIDE - 1),
            "rescaling": Scaling(),
        },
    ),
    Gdn: ("gdn", _GDN),
    Gdn1: ("gdn1", _GDN),
    Add: ("add", {"multipliers": OfEachInput(Integers("out", 0, MAX_ACCUMULATOR)), "rescaling": Scaling()}),
    Requantize: ("requantize", {"rescaling": Scaling()}),
    Multiply: ("multiply", {"rescaling": Scaling()}),
    Sigmoid: ("sigmoid", {"table": Integers("values", -INT32_MAX, INT32_MAX)}),
    PixelShuffle: ("pixel_shuffle", {"factor": Number(1, MAX_FACTOR)}),
}
# How many tensors each reads; an addition two or more.
_INPUTS: Mapping[type[Operation], int] = {Multiply: 2}


def check_fields(op: Operation, inputs: Sequence[Grid]) -> None:
    """Raise ``LoweringError`` unless everything in the operation has the shape and lies in the range of the table."""
    wanted = _INPUTS.get(type(op), 1)
    if len(inputs) < 2 if isinstance(op, Add) else len(inputs) != wanted:
        raise LoweringError(f"{op.name}: reads {len(inputs)} tensors")
    fields = OPERATIONS[type(op)][1]
    for name, field in fields.items():
        if isinstance(field, Number):  # first: the shapes and ranges of tensors depend on them
            _check_number(op, name, field)
    for name, field in fields.items():
        _check_field(op, name, field, inputs)


def _check_number(op: Operation, name: str, field: Number) -> None:
    if not field.low <= getattr(op, name) <= field.high:
        raise LoweringError(f"{op.name}: its {name} lies outside {field.low}..{field.high}")


def _check_field(op: Operation, name: str, field: Field, inputs: Sequence[Grid]) -> None:
    value = getattr(op, name)
    match field:
        case Weights(axes):
            low, high = weight_range(op.weight_bits)  # type: ignore[attr-defined]
            _check_tensor(op, name, value, axes, (low, high), inputs)
        case Integers(axis, low, high):
            _check_tensor(op, name, value, (axis,), (low, high), inputs)
        case OfEachInput(vector):
            if len(value) != len(inputs):
                raise LoweringError(f"{op.name}: needs {name} for each of the tensors that it reads")
            for one in value:
                _check_tensor(op, name, one, (vector.axis,), (vector.low, vector.high), inputs)
        case Scaling():
            if len(value.shift) != op.grid.channels:
                raise LoweringError(f"{op.name}: its {name} does not fit its output")


def _check_tensor(
    op: Operation, name: str, value: Ints, axes: tuple[str, ...], limits: tuple[int, int], inputs: Sequence[Grid]
) -> None:
    sizes = {"out": op.grid.channels, "in": inputs[0].channels}
    if "in of a group" in axes:
        groups = op.groups  # type: ignore[attr-defined]
        if sizes["in"] % groups or sizes["out"] % groups:
            raise LoweringError(f"{op.name}: its channels do not fall into {groups} groups")
        sizes["in of a group"] = sizes["in"] // groups
    if "values" in axes:
        if inputs[0].bits > MAX_BITS:
            raise LoweringError(f"{op.name}: fixed point has no table")
        sizes["values"] = 1 << inputs[0].bits
    shape = value.shape
    if len(shape) != len(axes) or not all(_fits(n, axis, sizes) for n, axis in zip(shape, axes, strict=True)):
        raise LoweringError(f"{op.name}: its {name} has the shape {shape} instead of ({', '.join(axes)})")
    if not lies_within(value, *limits):
        raise LoweringError(f"{op.name}: its {name} lies outside {limits[0]}..{limits[1]}")


def _fits(n: int, axis: str, sizes: Mapping[str, int]) -> bool:
    return 1 <= n <= MAX_KERNEL if axis == "kernel" else n == sizes[axis]
