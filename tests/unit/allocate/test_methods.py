"""Every method under every kind of budget, on a small model."""

import itertools
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

from licquant import pipeline
from licquant.allocate import methods
from licquant.allocate.methods import METHODS, allocate
from licquant.allocate.search import Search
from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Change
from licquant.config import Budget, LayerBits, Plan
from licquant.errors import BudgetError, ModelError
from licquant.evaluate import latency
from licquant.evaluate.latency import EXACT, NARROW, OPENVINO, LatencyTable, LayerTimes
from licquant.models.geometry import geometry_hash
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.in_training.finetune_settings import FinetuneRecipe, Training
from licquant.quant.network import QuantizedModel, layer_names, uniform_plan
from licquant.quant.settings import Settings
from licquant.quant.synthetic import dead_leaves
from licquant.train.settings import RunOptions
from tests.models_for_tests import small_hyperprior

LMBDA = 0.01
SEARCHING = ("uniform", "fmpq", "optimal", "hessian", "rdo-ptq")  # raq has one plan only
SLACK = 1 + 1e-8


def latency_table(traced: TracedModel) -> LatencyTable:
    """Every layer is faster the narrower it is, by its position."""
    layers = {
        name: LayerTimes(EXACT, 1, {(s // 2, s - s // 2): n + s / 4 for s in range(4, 33)})
        for n, name in enumerate(layer_names(traced))
    }
    return LatencyTable(layers, 7.0, (768, 512), 1, geometry_hash(traced), latency.machine())


def new_search(changes=None, **settings) -> Search:
    """A search of the small model; changes: of its arguments; settings: of its ``Settings``."""
    changes = changes or {}
    traced, images = trace_model(small_hyperprior()), dead_leaves(1, 64)
    values = {
        "traced": traced,
        "images": images,
        "statistics": collect_statistics(traced, images),
        "settings": Settings(**{"lmbda": LMBDA, "latency": latency_table(traced), **settings}),
    }
    return Search(**{**values, **changes})


@cache
def search() -> Search:
    """One for all tests that only read: its tables are measured once."""
    found = new_search()
    found.__dict__["crops"], found.__dict__["joint_crops"] = found.crops[:1], found.joint_crops[:1]
    return found


def raq_plan(traced: TracedModel) -> Plan:
    wide = ("g_a.", "h_a.")
    plan = uniform_plan(traced, 8, 8)
    return Plan({name: LayerBits(b.weight, 16 if name.startswith(wide) else 8) for name, b in plan.items()})


@pytest.mark.slow
@pytest.mark.parametrize("command", ["quantize", "finetune"])
def test_a_latency_table_that_is_missing_or_of_another_model_is_said_before_calibration(command, tmp_path) -> None:
    told: list[object] = []
    training = Training(
        FinetuneRecipe(model="bmshj2018-hyperprior", lmbda=LMBDA), RunOptions(tmp_path, tmp_path / "model.licq")
    )
    run = partial(pipeline.finetune, training=training) if command == "finetune" else pipeline.quantize
    other = replace(latency_table(trace_model(small_hyperprior())), geometry="of another")
    for table, error, why in ((None, BudgetError, "needs a table of this"), (other, ModelError, "with another model")):
        with pytest.raises(error, match=why):
            run(
                small_hyperprior(),
                dead_leaves(1, 64),
                budget=Budget("latency", 1.1, relative=True),
                settings=Settings(lmbda=LMBDA, latency=table),
                on_progress=lambda *step: told.append(step),
            )
    assert not told


@pytest.mark.parametrize("kind", ["bits", "size", "bytes", "bops", "latency"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_every_budget(method, kind):
    traced = search().traced
    within = raq_plan(traced) if method == "raq" else uniform_plan(traced, 5, 8)
    costs, _ = search().costs(Budget(kind, 2.0))
    value = costs.total(within) / (traced.fp32_bytes if kind == "size" else 1)
    plan = allocate(search(), method, Budget(kind, value))
    plan.check(layer_names(traced))
    assert costs.total(plan) <= costs.total(within) * SLACK
    if method in ("uniform", "rdo-ptq", "raq"):
        assert plan.layers == within.layers
    else:
        assert len({bits.weight for bits in plan.values()}) > 1  # not just the uniform one
    assert all(bits.activation <= 8 for bits in plan.values()) or method == "raq"


@pytest.mark.parametrize("kind", ["bits", "bytes", "bops", "latency"])
def test_optimal_is_best_by_the_table(kind):
    """Of all methods, before the repair: the joint loss is made additive here, so that there is nothing to repair."""
    found = new_search()
    found.__dict__.update(crops=search().crops, _tables=search()._tables, file_bytes=search().file_bytes)
    found.__dict__["traces"] = search().traces
    costs, _ = found.costs(Budget(kind, 2.0))
    budget = Budget(kind, costs.total(uniform_plan(found.traced, 4, 8)))
    choices = found.choices(budget).believable()
    found.joint_loss = choices.loss
    loss = {method: choices.loss(allocate(found, method, budget)) for method in SEARCHING}
    assert loss["optimal"] == min(loss.values())
    assert loss["optimal"] < loss["uniform"]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_optimal_loses_no_more_than_fmpq_on_the_whole_model(bits):
    found, budget = search(), Budget("bits", bits)
    assert found.joint_loss(allocate(found, "optimal", budget)) <= found.joint_loss(allocate(found, "fmpq", budget))


@pytest.mark.parametrize("kind", ["bits", "bytes"])
def test_activations_that_no_budget_counts_are_not_measured(kind):
    found = new_search()
    found.__dict__["crops"] = search().crops
    found.choices(Budget(kind, 2.0))
    table = found.measured_table
    assert table is not None
    assert all(table.widths(layer, ACTIVATIONS) == [] for layer in table.layers)
    assert table.widths("g_a.0", WEIGHTS) == list(range(2, 9))


def test_where_every_width_costs_something_else_all_are_candidates():
    layer = search().choices(Budget("bops", 2.0)).layers["g_a.0"]
    assert list(layer.weights) == list(layer.activations) == list(range(2, 9))


def kernels_table(traced: TracedModel) -> LatencyTable:
    """Every layer takes 1 ms, 3 ms where it reads or has more than 8 bits."""
    times = LayerTimes(OPENVINO, 1, {(w, a): 1.0 if w == a == NARROW else 3.0 for w in (8, 12) for a in (8, 12)})
    return LatencyTable(
        dict.fromkeys(layer_names(traced), times), 0.0, (768, 512), 1, geometry_hash(traced), latency.machine()
    )


@cache
def wider() -> Search:
    """With activations of up to 12 bits, on such kernels."""
    found = new_search(latency=kernels_table(search().traced), activation_bits=12)
    found.__dict__.update(crops=search().crops, joint_crops=search().joint_crops)
    return found


def test_of_widths_that_take_the_same_time_the_widest_alone_is_measured():
    choices, table = wider().choices(Budget("latency", 1.1, relative=True)), wider().measured_table
    assert table is not None
    assert {bits for _, kind, bits in table.changes if kind == WEIGHTS} == {8}
    assert {bits for _, kind, bits in table.changes if kind == ACTIVATIONS} == {8, 12}
    assert all(list(layer.activations) == [8, 12] for layer in choices.layers.values())


def test_what_was_measured_before_is_no_candidate(tmp_path):
    """A table on disk may have widths of other budgets: choices are the same."""
    narrow = new_search(latency=kernels_table(search().traced), activation_bits=9, cache=tmp_path)
    narrow.__dict__.update(crops=search().crops)
    narrow.choices(Budget("latency", 1.0, relative=True))
    found = new_search(latency=kernels_table(search().traced), activation_bits=12, cache=tmp_path)
    found.__dict__.update(crops=search().crops)
    assert found.choices(Budget("latency", 1.0, relative=True)) == wider().choices(Budget("latency", 1.0))


@pytest.mark.parametrize("kind", ["bops", "latency"])
def test_per_cent_are_of_8_bits_everywhere(kind):
    costs, limit = wider().costs(Budget(kind, 1.25, relative=True))
    assert limit == pytest.approx(1.25 * costs.total(uniform_plan(wider().traced, 8, 8)))
    assert wider().costs(Budget(kind, 1.25))[1] == 1.25


def test_time_to_spare_goes_to_the_activations_that_lose_most():
    count = len(layer_names(wider().traced))
    spare = 2.5 * 2 / count  # two layers of wide activations, and not three
    choices = wider().choices(Budget("latency", 1.0)).believable()
    gain = {name: of.activations[8] - of.activations[12] for name, of in choices.layers.items()}
    most = sorted(gain, key=gain.__getitem__)[-2:]
    plan = allocate(wider(), "optimal", Budget("latency", 1 + spare, relative=True))
    assert {name for name, bits in plan.items() if bits.activation > 8} == set(most)
    assert all(bits.weight in (8, None) for bits in plan.values())


@pytest.mark.parametrize("method", ["fmpq", "optimal"])
def test_a_narrow_width_that_seems_to_gain_is_not_believed(method):
    found = new_search()
    found.__dict__.update(crops=search().crops, file_bytes=search().file_bytes)
    found.choices(budget := Budget("bits", 6))
    table = found.measured_table
    assert table is not None
    lucky = ("g_a.0", WEIGHTS, 2)
    assert table.zeta(*lucky, LMBDA) > 0
    table.changes[lucky] = Change(-table.base.loss(LMBDA), 0.0)
    found.joint_loss = lambda plan: 0.0  # the first plan stays
    plan = allocate(found, method, budget)
    assert plan["g_a.0"].weight > 2


def test_plans_are_judged_on_other_crops_than_the_tables():
    found = new_search({"images": dead_leaves(2, 320)})
    assert not any((crop == other).all() for crop in found.crops for other in found.joint_crops)


# 2 bits are in everyone's reach but raq's, and less is no budget.
_REFUSED = [("raq", "bits"), *itertools.product(METHODS, ["size", "bytes", "bops", "latency"])]


@pytest.mark.parametrize(("method", "kind"), _REFUSED)
def test_a_budget_out_of_reach_names_the_least(method, kind):
    traced = search().traced
    costs, _ = search().costs(Budget(kind, 2.0))
    counted = kind in ("bops", "latency") and method in ("fmpq", "optimal")  # they choose activations too
    least = costs.total(raq_plan(traced) if method == "raq" else uniform_plan(traced, 2, 2 if counted else 8))
    if method in ("optimal", "hessian"):  # 2 bits of a small layer may take more bytes than 3
        least = costs.constant + sum(
            min(costs.of(name, weight, 2 if counted else 8) for weight in range(2, 9)) for name in costs.layers
        )
    value = least * 0.99 / (traced.fp32_bytes if kind == "size" else 1)
    with pytest.raises(BudgetError) as error:
        allocate(search(), method, Budget(kind, value))
    numbers = [word.replace(",", "") for word in str(error.value).split() if word[0].isdigit()]
    named = float(numbers[0])
    assert least * (1 - 1e-9) <= named <= least * (1 + 1e-5)


def test_unknown_methods_and_missing_means():
    with pytest.raises(BudgetError, match=r"unknown method 'best'.*fmpq"):
        allocate(search(), "best", Budget("bits", 8))
    with pytest.raises(BudgetError, match="licquant profile"):
        allocate(new_search(latency=None), "uniform", Budget("latency", 100))
    without = new_search(lmbda=None)
    assert allocate(without, "uniform", Budget("bits", 6)).layers == uniform_plan(without.traced, 6, 8).layers
    with pytest.raises(ModelError, match="λ"):
        allocate(without, "fmpq", Budget("bits", 6))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "fmpq", "optimal"])
def test_a_loss_budget_is_held_to_what_is_measured(method, monkeypatch):
    monkeypatch.setattr(methods, "_STEPS", 3)
    widest = search().file_bytes.total(uniform_plan(search().traced, 8, 8))
    allowed = 0.05 + max(0.0, search().joint_loss(allocate(search(), method, Budget("bytes", widest))))
    plan = allocate(search(), method, Budget("loss", allowed))
    assert search().joint_loss(plan) <= allowed
    assert search().file_bytes.total(plan) < widest


def test_a_loss_budget_gives_the_smallest_plan(monkeypatch):
    """With a loss that is known: 1 % at 8 bits, doubled by each bit less."""
    found = new_search()
    found.__dict__["file_bytes"] = search().file_bytes
    found.joint_loss = lambda plan: 0.01 * 2 ** (8 - plan["g_a.0"].weight)
    for loss, bits in ((0.01, 8), (0.02, 7), (0.05, 6), (0.08, 5), (0.1, 5), (1.0, 2)):
        assert allocate(found, "uniform", Budget("loss", loss)).layers == uniform_plan(found.traced, bits, 8).layers
    with pytest.raises(BudgetError, match=r"smallest this method reaches is 1 %"):
        allocate(found, "uniform", Budget("loss", 0.0099))
    found.joint_loss = lambda plan: 0.5
    with pytest.raises(BudgetError, match=r"smallest this method reaches is 50 %"):
        allocate(found, "raq", Budget("loss", 0.4))


def test_a_loss_budget_is_measured_on_images_that_nothing_was_fitted_to(monkeypatch):
    images = dead_leaves(3, 64)
    fitted, measured = [], []

    def fit(quantized: QuantizedModel, photographs, *_) -> None:
        fitted.append(list(photographs))
        for parameter in quantized.parameters():
            parameter.data.fill_(1.0)  # ruins the model, which a measurement must notice

    monkeypatch.setattr("licquant.allocate.search.fit", fit)
    found = new_search({"images": images}, reconstruction_steps=1)
    drawn = methods.Search.fitted_loss.__globals__["draw_crops"]

    def draw(images, *args, **settings):
        measured.append(images)
        return drawn(images, *args, **settings)

    monkeypatch.setattr("licquant.allocate.search.draw_crops", draw)
    plan = uniform_plan(found.traced, 8, 8)
    loss = found.fitted_loss(plan)
    assert [id(image) for image in fitted[0]] == [id(images[0]), id(images[2])]
    assert [id(image) for image in measured[0]] == [id(images[1])]
    assert loss > found.joint_loss(plan) + 0.01


def test_raq_needs_its_8_bits():
    found = new_search(max_bits=6)
    found.__dict__["file_bytes"] = search().file_bytes
    with pytest.raises(BudgetError, match="raq has weights of 8 bits; at most 6"):
        allocate(found, "raq", Budget("size", 0.5))


def test_measured_tables_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = new_search(cache=tmp_path, max_bits=3, activation_bits=3)
    first.__dict__["crops"] = search().crops
    budget = Budget("bytes", 1e6)
    kept = first.choices(budget), first.file_bytes.total(uniform_plan(first.traced, 3, 8)), first.traces
    monkeypatch.setattr("licquant.allocate.search.file_bytes_cost", None)
    monkeypatch.setattr("licquant.allocate.search.weight_hessian_traces", None)
    monkeypatch.setattr("licquant.allocate.sensitivity.Probe", None)
    again = new_search(cache=tmp_path, max_bits=3, activation_bits=3)
    again.__dict__["crops"] = search().crops
    assert kept == (again.choices(budget), again.file_bytes.total(uniform_plan(again.traced, 3, 8)), again.traces)


def test_kept_bytes_know_the_header_of_today(tmp_path: Path):
    """The model's making is told in the file: a longer command line or licence is no longer than that."""

    def of_file(licence: str, cache: Path | None) -> float:
        found = new_search({"provenance": {"command": licence}}, licence=licence, cache=cache, max_bits=2)
        return found.file_bytes.total(uniform_plan(found.traced, 2, 8))

    of_file("short", tmp_path)
    assert of_file("é" * 300, tmp_path) == of_file("é" * 300, None)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all methods: the tables are measured once."""
    return tmp_path_factory.mktemp("tables")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "fmpq", "optimal"])
def test_the_file_is_no_larger_than_its_budget(method, tables):
    images = dead_leaves(1, 64)
    settings = pipeline.Settings(lmbda=LMBDA, max_bits=6, activation_bits=6, cache=tables)
    uniform = pipeline.quantize(small_hyperprior(), images, "uniform", Budget("bits", 5), settings)
    size = len(uniform.artifact.to_bytes()) + 64
    result = pipeline.quantize(small_hyperprior(), images, method, Budget("bytes", size), settings)
    assert len(result.artifact.to_bytes()) <= size
