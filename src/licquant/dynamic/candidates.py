"""Which stages choose a width at all: those about which the calibration images do not agree.

A stage that serves several widths pays for it where it is narrow: its weights are rounded twice, its grids follow the
widest, and its training is shared. Where most images want the same, it keeps that width, and is what
it would be in a static network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from licquant.dynamic.network import DynamicModel
from licquant.dynamic.objective import ROUNDING, StageCost, least_bits
from licquant.dynamic.settings import DynamicSettings
from licquant.dynamic.stages import Candidates

Shares = Mapping[str, Mapping[int, float]]  # stage → width → of the images that want it

# The share of the images that decides for all: the first that leaves widths with which the average can be kept.
_AGREED = 0.6, 0.8, 0.95, 1.0
_ENOUGH = 0.1  # of the images, for a width to be worth having


def widths_in_use(
    network: DynamicModel, wanted: Mapping[str, Tensor], dynamic: DynamicSettings, cost: StageCost
) -> dict[str, tuple[int, ...]]:
    """Adaptive stage → the one width that three fifths of the images want, or else those that it chooses from.

    These are all from the narrowest that more than a tenth want up to the widest: weights are rounded to the widest
    width first, and a narrow one's error grows by less the more bits the widest has beyond it.
    Where the average allows every image the widest that is left, none would choose less: then the stage that most
    images want wider than it is gets all wider ones too, and images compete for them.
    In a part about which the images agree, one stage chooses all the same, between its width and the one below: one of
    the widest width if there is any, so that it is seldom narrow, and the one about which they agree least.

    wanted: adaptive stage → the width that is best for each image, float[images], as ``centre_weights`` finds it
    """
    parts = [[stage.name for stage in part.adaptive] for part in network.networks.values()]
    shares: Shares = {
        stage.name: {width: float((wanted[stage.name] == width).float().mean()) for width in stage.widths}
        for part in network.networks.values()
        for stage in part.adaptive
    }
    least = partial(least_bits, network, cost, dynamic.widths[-1])
    most = dynamic.target or 0.0
    found: dict[str, tuple[int, ...]] = {}
    for agreed in _AGREED:
        found = {name: _of_stage(of, agreed) for name, of in shares.items()}
        while least({name: widths[-1:] for name, widths in found.items()}) <= most + ROUNDING:
            further = _further(shares, found)
            if not further:
                break
            found |= further
        for names in parts:
            found |= _one_that_chooses({name: shares[name] for name in names}, found)
        if dynamic.target is None or least(found) <= most + ROUNDING:
            break
    return found


def _of_stage(shares: Mapping[int, float], agreed: float) -> tuple[int, ...]:
    most = max(shares, key=lambda width: shares[width])
    if shares[most] >= agreed:
        return (most,)
    narrowest = min(width for width, share in shares.items() if share > min(_ENOUGH, 1 - agreed))
    return tuple(width for width in sorted(shares) if width >= narrowest) if narrowest < max(shares) else (most,)


def _further(shares: Shares, found: Candidates) -> dict[str, tuple[int, ...]]:
    """The stage that most images want wider than it can be, with all wider widths; empty if there is none."""
    wider = {name: sum(share for width, share in of.items() if width > found[name][-1]) for name, of in shares.items()}
    name = max(wider, key=lambda stage: wider[stage])
    return {name: tuple(w for w in sorted(shares[name]) if w >= found[name][0])} if wider[name] > 0 else {}


def _one_that_chooses(shares: Shares, found: Candidates) -> dict[str, tuple[int, ...]]:
    """What has to change in a part for one of its stages to choose; empty if one does."""
    if any(len(found[name]) > 1 for name in shares):
        return {}
    undecided = min(shares, key=lambda name: (found[name] != (max(shares[name]),), max(shares[name].values())))
    widths = sorted(shares[undecided])
    wide = max(1, widths.index(found[undecided][0]))
    return {undecided: tuple(widths[wide - 1 : wide + 1])}
