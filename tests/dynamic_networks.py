"""Dynamic networks as they are before anything is trained."""

from collections.abc import Sequence

from licquant.dynamic.network import DynamicModel, insert_widest, make_dynamic
from licquant.dynamic.stages import same_candidates, stage_statistics
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
    candidates, found = same_candidates(traced, widths), stage_statistics(traced, statistics)
    wide = insert_widest(traced, candidates, found, settings)
    return make_dynamic(wide, candidates, found, settings)
