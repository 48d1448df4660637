"""The static plan that a dynamic model is compared with."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.dynamic_static import CLOSE, nearest_plan, static_plan
from licquant.config import LayerBits, Plan
from tests.dynamic_programs import dynamic_artifact


@pytest.mark.parametrize(
    ("averages", "expected"),
    [
        ((6.0, 7.0, 8.0), (6, 7, 8)),
        ((6.1, 6.9, 7.9), (6, 7, 8)),  # 33.9 bits of all layers, 34 in the plan
        ((6.1, 7.0, 7.9), (6, 7, 8)),  # 34.1
        ((6.3, 7.0, 7.9), (6, 7, 8)),  # 34.5: of 34 and 35, which are as near, the nearer to every stage
        ((6.4, 7.0, 7.9), (7, 7, 7)),  # 34.7: those nearest to every stage are too few
        ((6.4, 6.3, 6.4), (7, 6, 6)),
        ((8.0, 8.0, 8.0), (8, 8, 8)),
    ],
)
def test_the_nearest_plan_has_the_nearest_bits(averages: tuple[float, ...], expected: tuple[int, ...]) -> None:
    layers = {"a": 2, "b": 2, "c": 1}
    found = nearest_plan(dict(zip("abc", averages, strict=True)), layers, (6, 7, 8))
    assert tuple(found.values()) == expected
    wanted = sum(layers[s] * a for s, a in zip("abc", averages, strict=True))
    assert abs(sum(layers[s] * found[s] for s in "abc") - wanted) <= 0.5


_Stages = dict[str, tuple[float, int]]  # name → average bits, layers
_STAGES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2), st.tuples(st.floats(4, 8), st.integers(1, 5)), min_size=1, max_size=5
)


@given(_STAGES)
def test_of_all_plans_with_as_many_bits_none_is_nearer(stages: _Stages) -> None:
    averages, layers = {s: average for s, (average, _) in stages.items()}, {s: n for s, (_, n) in stages.items()}

    def apart(plan: Iterable[int]) -> tuple[float, float]:
        pairs = list(zip(stages, plan, strict=True))
        bits = sum(layers[s] * (width - averages[s]) for s, width in pairs)
        return abs(bits), sum(layers[s] * (width - averages[s]) ** 2 for s, width in pairs)

    plans = [apart(plan) for plan in product((4, 6, 8), repeat=len(stages))]
    allowed = min(plans)[0] + CLOSE * sum(layers.values())
    found = apart(nearest_plan(averages, layers, (4, 6, 8)).values())
    assert found[0] <= allowed + 1e-5
    assert (
        found[1] <= min(by_stage for bits, by_stage in plans if bits <= allowed - 1e-5 or bits == min(plans)[0]) + 1e-5
    )


def test_a_stage_that_images_want_wide_stays_wide() -> None:
    """What Cheng 2020 chose: 209 bits over 34 layers, where 208 and 210 are as near."""
    averages = {"g_s.5": 6.25, "g_s.6": 6.0, "g_s.7": 8.0, "rest": 6.0}
    found = nearest_plan(averages, {"g_s.5": 4, "g_s.6": 2, "g_s.7": 1, "rest": 27}, (4, 6, 8))
    assert found == {"g_s.5": 6, "g_s.6": 6, "g_s.7": 8, "rest": 6}


def test_the_stages_of_a_deep_model_are_not_tried_in_every_combination() -> None:
    """ELIC has about thirty: three to the power of that."""
    found = nearest_plan(
        {str(s): 6 + (s + 0.25) / 30 for s in range(30)}, dict.fromkeys(map(str, range(30)), 3), (6, 7, 8)
    )
    assert list(found.values()) == [6] * 15 + [7] * 15


def test_what_has_no_weights_does_not_count() -> None:
    """Here a step that brings a stage's input to its width: the plan does not know it."""
    artifact = dynamic_artifact()
    layers = dict(artifact.plan)
    del layers["g_a.2"]
    averages = {"g_a.1": 8.0, "g_a.2": 8.0, "g_s.1": 4.0, "g_s.2": 6.0}
    plan, dynamic, static = static_plan(replace(artifact, plan=Plan(layers)), averages)
    assert (dynamic, static) == (6, 6)
    fixed = {name: LayerBits(8, 8) for name in ("g_a.0", "g_a.1", "g_s.0")}
    assert dict(plan) == fixed | {"g_s.1": LayerBits(4, 4), "g_s.2": LayerBits(6, 6)}
