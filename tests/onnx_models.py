"""What the tests of exported models share: running one, the types in one, and the decoder of ``examples/``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'licquant[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'licquant[onnx]'")

from licquant.onnx_export.graph import QUANTIZED_OPSET, Graph  # noqa: E402
from licquant.onnx_export.parts import emit  # noqa: E402
from licquant.onnx_export.sums import stored_type  # noqa: E402
from licquant.program.part import Part  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "decode_with_onnxruntime.py"
LEVELS = list(onnxruntime.GraphOptimizationLevel.__members__.values())


def options(level: Any = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL) -> Any:
    found = onnxruntime.SessionOptions()
    found.graph_optimization_level, found.intra_op_num_threads, found.log_severity_level = level, 1, 3
    return found


def run(model: Any, level: Any = LEVELS[-1], **inputs: np.ndarray) -> list[np.ndarray]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options(level), ["CPUExecutionProvider"])
    return session.run(None, inputs)


def kernels_saturate() -> bool:
    """Whether ONNX Runtime adds products of uint8 and int8 in 16 bits on this processor."""
    graph = Graph("products", QUANTIZED_OPSET)
    x = graph.input("x", np.uint8, [1, 64, 1, 1])
    one, zero = graph.constant(np.float32(1), np.float32), graph.constant(np.uint8(0), np.uint8)
    weight = graph.constant(np.full((64, 64, 1, 1), 127), np.int8)
    signed, far = graph.constant(np.int8(0), np.int8), graph.constant(np.float32(64 * 255), np.float32)
    y = graph.node("QLinearConv", x, one, zero, weight, one, signed, far, zero)
    graph.output("y", y, np.uint8, [1, 64, 1, 1])
    return bool((run(graph.model({}), x=np.full((1, 64, 1, 1), 255, np.uint8))[0] != 127).any())


def model_of(part: Part, doubles: bool) -> Any:
    """A part alone: stored integers ``x`` to ``y``."""
    graph, read, written = Graph(part.name), part.input_grid, part.output_grid
    x = graph.input("x", stored_type(read), [1, read.channels, "h", "w"])
    y = emit(graph, part, x, doubles=doubles)
    graph.output("y", y, stored_type(written), [1, written.channels, "h2", "w2"])
    return graph.model({})


def stored(part: Part, q: np.ndarray) -> np.ndarray:
    return q[None].astype(stored_type(part.input_grid))


def types_of(model: Any) -> set[np.dtype]:
    """Of everything that is anywhere in a model: inputs, outputs, constants and what nodes write."""
    full = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    values = [*full.graph.input, *full.graph.output, *full.graph.value_info]
    named = {value.name for value in values}
    assert {name for node in full.graph.node for name in node.output} <= named, "a value of unknown type"
    kinds = {value.type.tensor_type.elem_type for value in values}
    kinds |= {constant.data_type for constant in full.graph.initializer}
    return {onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in kinds}


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("decode_with_onnxruntime", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
