"""Dynamic networks as they are before anything is trained."""

from collections.abc import Mapping, Sequence

import torch

from licquant.dynamic.network import DynamicModel, insert_widest, make_dynamic
from licquant.dynamic.selector import BitWidthSelector, make_selectors
from licquant.dynamic.stages import stage_statistics
from licquant.models.trace import TracedModel
from licquant.quant.calibrate import Statistics
from licquant.quant.insert import QuantizerSettings


def insert_dynamic(
    traced: TracedModel,
    widths: Sequence[int],
    statistics: Statistics,
    settings: QuantizerSettings | None = None,
) -> DynamicModel:
    """The dynamic network with weights rounded to nearest and calibrated ranges; widths: those of every stage."""
    found = stage_statistics(traced, statistics)
    wide = insert_widest(traced, max(widths), found, settings)
    return make_dynamic(wide, sorted(widths), found, settings)


def random_selectors(network: DynamicModel, statistics: Statistics, seed: int = 0) -> Mapping[str, BitWidthSelector]:
    """Selectors whose last weights are random, so that their choices differ from image to image."""
    torch.manual_seed(seed)
    selectors = make_selectors(network, statistics)
    for selector in selectors.values():
        selector.eval()
        with torch.no_grad():
            layer = selector.network.layers[selector.network.graph.output]
            layer.weight.normal_(std=0.3)
            layer.bias.zero_()
        selector.network.fit_units()
    return selectors
