"""Plans and budgets: round trips, and errors that say what is wrong."""

import json

import pytest

from licquant.config import Budget, LayerBits, Plan
from licquant.errors import BudgetError, PlanError

PLAN = Plan({"g_a.0": LayerBits(8, 8), "g_a.add": LayerBits(None, 6)})


def test_round_trip_through_json():
    again = Plan.from_json(json.loads(json.dumps(PLAN.to_json())))
    assert again == PLAN
    assert again.hash == PLAN.hash


def test_a_plan_answers_whether_it_has_a_layer():
    plan = Plan({"g_a.0": LayerBits(8, 8)})
    assert "g_a.0" in plan
    assert "g_a.1" not in plan


def test_hash_tells_plans_apart():
    assert Plan({"g_a.0": LayerBits(8, 7), "g_a.add": LayerBits(None, 6)}).hash != PLAN.hash


@pytest.mark.parametrize("bits", [(1, 8), (8, 17), (8, 0), (True, 8), (8, 8.0)])
def test_impossible_widths(bits):
    with pytest.raises(PlanError):
        LayerBits(*bits)


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"format": "licquant.plan", "version": 2, "layers": {"a": {"weight": 8, "activation": 8}}},
        {"format": "licquant.plan", "version": 1, "layers": {}},
        {"format": "licquant.plan", "version": 1, "layers": {"a": {"weight": 8}}},
        {"format": "licquant.plan", "version": 1, "layers": {"a": 8}},
    ],
)
def test_other_records_are_refused(record):
    with pytest.raises(PlanError):
        Plan.from_json(record)


def test_unknown_and_missing_layers_are_named():
    PLAN.check(["g_a.add", "g_a.0"])
    with pytest.raises(PlanError, match=r"lacks g_s\.0"):
        PLAN.check(["g_a.add", "g_a.0", "g_s.0"])
    with pytest.raises(PlanError, match=r"g_a\.add"):
        PLAN.check(["g_a.0"])
    with pytest.raises(PlanError, match="lacks layer x"):
        PLAN["x"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("bits=8", "bits", 8), ("size=0.25", "size", 0.25), ("size=25%", "size", 0.25), ("loss=0.5%", "loss", 0.005),
     ("bytes=1e6", "bytes", 1e6), (" latency = 20 ", "latency", 20), ("latency=110%", "latency", 1.1)],
)  # fmt: skip
def test_budgets(text, kind, value):
    found = Budget.parse(text)
    assert (found.kind, found.value) == (kind, pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "relative"),
    [("bops=1e8", False), ("latency=20", False), ("latency = 110 %", True), ("bops=90%", True), ("loss=1%", False)],
)
def test_per_cent_of_what_runs_is_relative(text, relative):
    assert Budget.parse(text).relative is relative


@pytest.mark.parametrize(
    "text", ["", "8", "bits", "bits=", "bits=x", "bits=1", "bits=17", "size=-1", "size=inf", "x=3", "loss=nan"]
)
def test_bad_budgets(text):
    with pytest.raises(BudgetError):
        Budget.parse(text)
