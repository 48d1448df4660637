"""An ONNX graph on its way: nodes in order, constants, and names that nobody has to invent.

A value is the name of what a node writes; all constants are NumPy arrays of the type that the graph computes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import helper, numpy_helper

from licquant import __version__

OPSET = 17
QUANTIZED_OPSET = 21  # the first that quantizes to 16 bits
IR_VERSIONS = {OPSET: 8, QUANTIZED_OPSET: 10}  # those of their opsets: older runtimes refuse newer ones

Value = str
Dimension = int | str


class Graph:
    """Nodes, inputs and outputs of one model."""

    def __init__(self, name: str, opset: int = OPSET) -> None:
        self.name, self._opset = name, opset
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._initializers: list[onnx.TensorProto] = []

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[Dimension]) -> Value:
        """An input of the model; a dimension with a name is dynamic."""
        self._inputs.append(helper.make_tensor_value_info(name, _type(dtype), shape))
        return name

    def output(self, name: str, value: Value, dtype: DTypeLike, shape: Sequence[Dimension]) -> None:
        """Call a value an output of the model."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _type(dtype), shape))

    def node(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """Add a node with one output."""
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, values: ArrayLike, dtype: DTypeLike) -> Value:
        """Equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(values, dtype=dtype)).reshape(np.shape(values))
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def channels(self, values: NDArray[Any], dtype: DTypeLike) -> Value:
        """A vector with one number a channel, for tensors [N, C, H, W]; a single number where all are equal."""
        same = bool((values == values[0]).all())
        return self.constant(values[0] if same else values.reshape(1, -1, 1, 1), dtype)

    def cast(self, value: Value, dtype: DTypeLike) -> Value:
        """The value in another type; from floating point, without its fraction."""
        return self.node("Cast", value, to=_type(dtype))

    def clip(self, value: Value, low: int, high: int, dtype: DTypeLike) -> Value:
        """The value, of that type, within low..high."""
        return self.node("Clip", value, self.constant(low, dtype), self.constant(high, dtype))

    def size(self, value: Value, axis: int) -> Value:
        """The length of an axis, int64 [1]."""
        return self.node("Shape", value, start=axis, end=axis + 1)

    def model(self, properties: Mapping[str, str]) -> onnx.ModelProto:
        """The model, which ``onnx.checker`` has passed."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._initializers)
        opset = [helper.make_opsetid("", self._opset)]
        model = helper.make_model(
            graph,
            opset_imports=opset,
            ir_version=IR_VERSIONS[self._opset],
            producer_name="licquant",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(properties))
        onnx.checker.check_model(model, full_check=True)
        return model


def _type(dtype: DTypeLike) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
