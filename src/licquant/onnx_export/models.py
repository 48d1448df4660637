"""The models of an artifact: analysis, hyper, contexts and synthesis.

    image ──analysis──> y, symbols of z            encoder alone
    symbols of z ──hyper──> table and mean of every symbol of y (or what the contexts read)
    what is decoded, hyper ──context──> table and mean of the symbols of one pass (``contexts.py``)
    symbols of y, means ──synthesis──> image

``hyper`` and the contexts are what an encoder and a decoder must agree on. Every number in them is an integer by its
type. The others are the free zone; they compute the same integers, partly in float64 (``numbers.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import ModelProto

from licquant.codec.codec import strides_of
from licquant.codec.files.artifact import Artifact
from licquant.codec.latents.factorized import FactorizedCoder
from licquant.codec.latents.families import LatentCoder, latent_coder
from licquant.codec.latents.hyperprior import GaussianCoder, MeanScaleCoder
from licquant.errors import ExportError
from licquant.onnx_export import latents
from licquant.onnx_export.contexts import PLANE, context_graphs, spatial_contexts
from licquant.onnx_export.graph import OPSET, QUANTIZED_OPSET, Dimension, Graph, Value
from licquant.onnx_export.parts import emit
from licquant.onnx_export.quantized import emit_quantized
from licquant.onnx_export.sums import stored_type
from licquant.program.part import Part

Z = ("z_height", "z_width")
# A part of the free zone: graph, part, stored integers of its input → of its output.
Emit = Callable[[Graph, Part, Value], Value]
_DOUBLES = partial(emit, doubles=True)


class Models:
    """The models of one artifact. ``properties`` go into each."""

    def __init__(self, artifact: Artifact, properties: dict[str, str]) -> None:
        """Raises ``ExportError`` if widths depend on the image, ``ArtifactError`` if the parts do not fit."""
        if artifact.dynamic:
            raise ExportError(
                "its widths depend on the image, which an ONNX model has no form for: export one of fixed widths"
            )
        self.artifact, self.program, self._properties = artifact, artifact.program, properties
        self.coder: LatentCoder = latent_coder(artifact.family, artifact.program, artifact.tables)
        self.strides = strides_of(artifact.program)

    def all(self) -> dict[str, ModelProto]:
        """File name without its suffix → model. Raises ``ExportError`` for an operation that has no exact form."""
        graphs = [self._analysis(_DOUBLES, OPSET), self._synthesis(_DOUBLES, OPSET)]
        if isinstance(self.coder, GaussianCoder):
            graphs += [self._hyper(self.coder), *context_graphs(self.coder, self.program)]
        return {graph.name: graph.model(self._properties) for graph in graphs}

    def quantized(self) -> dict[str, ModelProto]:
        """Analysis and synthesis once more, in QDQ form: as ``all``."""
        graphs = [make(emit_quantized, QUANTIZED_OPSET) for make in (self._analysis, self._synthesis)]
        return {graph.name: graph.model(self._properties) for graph in graphs}

    def _analysis(self, free: Emit, opset: int) -> Graph:
        """Any uint8 image [1, H, W, 3]. y itself comes out where its symbols need contexts."""
        graph, g_a = Graph("analysis", opset), self.program["g_a"]
        image = graph.input("image", np.uint8, [1, "height", "width", 3])
        x = graph.node("Transpose", _edge_padded(graph, image, self.strides[1]), perm=[0, 3, 1, 2])
        y = free(graph, g_a, x)
        channels, coder = g_a.output_grid.channels, self.coder
        if isinstance(coder, FactorizedCoder):
            symbols = latents.bottleneck_symbols(graph, coder.latent, y)
            graph.output("y_symbols", symbols, np.int32, [1, channels, *PLANE])
            return graph
        z = latents.bottleneck_symbols(graph, coder.hyper, free(graph, self.program["h_a"], y))
        graph.output("z_symbols", z, np.int32, [1, len(coder.tables.z), *Z])
        if spatial_contexts(coder):
            graph.output("y", y, np.int32, [1, channels, *PLANE])
            return graph
        means = isinstance(coder, MeanScaleCoder)
        mean = self._of_hyper(graph, coder, z)[1] if means else latents.no_means(graph, y)
        symbols = latents.gaussian_symbols(graph, coder.quantizer, y, mean)
        graph.output("y_symbols", symbols, np.int32, [1, channels, *PLANE])
        return graph

    def _hyper(self, coder: GaussianCoder) -> Graph:
        graph = Graph("hyper")
        z = graph.input("z_symbols", np.int32, [1, len(coder.tables.z), *Z])
        if spatial_contexts(coder):
            hyper, grid = self._synthesised_hyper(graph, coder, z), coder.h_s.output_grid
            graph.output("hyper", hyper, stored_type(grid), [1, grid.channels, *PLANE])
            return graph
        latents.parameters_out(graph, self._of_hyper(graph, coder, z), [1, coder.latent_channels, *PLANE])
        return graph

    def _synthesised_hyper(self, graph: Graph, coder: GaussianCoder, z: Value) -> Value:
        return emit(graph, coder.h_s, latents.bottleneck_restored(graph, coder.hyper, z), doubles=False)

    def _of_hyper(self, graph: Graph, coder: GaussianCoder, z: Value) -> tuple[Value, Value]:
        """(table, mean) of all symbols of y, for the families that need no contexts."""
        parameters = self._synthesised_hyper(graph, coder, z)
        if isinstance(coder, MeanScaleCoder):
            return latents.gaussian_parameters(graph, coder.quantizer, parameters, coder.latent_channels)
        index = latents.table_index(graph, coder.tables.thresholds, parameters)
        return index, latents.no_means(graph, index)

    def _synthesis(self, free: Emit, opset: int) -> Graph:
        graph, g_s, coder = Graph("synthesis", opset), self.program["g_s"], self.coder
        shape: list[Dimension] = [1, g_s.input_grid.channels, *PLANE]
        symbols = graph.input("y_symbols", np.int32, shape)
        if isinstance(coder, FactorizedCoder):
            restored = latents.bottleneck_restored(graph, coder.latent, symbols)
            y_hat = latents.lowered(graph, restored, coder.shift)
        else:
            y_hat = latents.gaussian_restored(graph, coder.quantizer, symbols, graph.input("means", np.int32, shape))
        pixels = graph.node("Transpose", free(graph, g_s, y_hat), perm=[0, 2, 3, 1])
        graph.output("image", pixels, np.uint8, [1, "height", "width", 3])
        return graph


def _edge_padded(graph: Graph, image: Value, stride: int) -> Value:
    """The last row and column repeated up to multiples of the stride."""
    step, nothing = graph.constant([stride], np.int64), graph.constant([0, 0, 0, 0, 0], np.int64)
    missing = [graph.node("Mod", graph.node("Neg", graph.size(image, axis)), step) for axis in (1, 2)]
    pads = graph.node("Concat", nothing, *missing, graph.constant([0], np.int64), axis=0)
    return graph.node("Pad", image, pads, mode="edge")
