"""Which widths a stage needs at all: those that enough calibration images want.

A stage that serves several widths pays for it: its weights are stored at the widest and trained for all. Where nearly
all images want the same, it keeps that width, and is what it would be in a static network.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from licquant.allocate.dynamic_objective import StageCost, least_bits
from licquant.allocate.dynamic_settings import DynamicSettings
from licquant.quant.dynamic import DynamicModel

# Of the images: the first share that leaves widths with which the average can be kept. The last, any at all, does.
_ENOUGH = 0.1, 0.03, 1e-9


def widths_in_use(
    network: DynamicModel, wanted: Mapping[str, Tensor], dynamic: DynamicSettings, cost: StageCost
) -> dict[str, tuple[int, ...]]:
    """Adaptive stage → the one width that more than nine tenths of the images want, or those that it chooses from.

    These are all from the narrowest that a tenth of the images want up to the widest: what a stage reads is rounded to
    its widest width first, and a narrow one's error grows by less the more bits the widest has beyond it.
    In a part where every stage would keep one width, the stage that most images want otherwise has its second too.

    wanted: adaptive stage → the width that is best for each image, float[images], as ``centre_weights`` finds it
    """
    found: dict[str, tuple[int, ...]] = {}
    for enough in _ENOUGH:
        found = _wanted_by(enough, network, wanted)
        if dynamic.target is None or least_bits(network, cost, dynamic.widths[-1], found) <= dynamic.target:
            break
    return found


def _wanted_by(enough: float, network: DynamicModel, wanted: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for part in network.networks.values():
        shares = {
            stage.name: {width: float((wanted[stage.name] == width).float().mean()) for width in stage.widths}
            for stage in part.adaptive
        }
        kept = {name: [w for w in of if of[w] >= min(enough, max(of.values()))] for name, of in shares.items()}
        if all(len(widths) == 1 for widths in kept.values()):
            undecided = min(shares, key=lambda name: max(shares[name].values()))
            kept[undecided] = sorted(shares[undecided], key=lambda width: shares[undecided][width])[-2:]
        for stage in part.adaptive:
            widths = kept[stage.name]
            found[stage.name] = tuple(w for w in stage.widths if w >= min(widths)) if len(widths) > 1 else (*widths,)
    return found
