"""The sensitivity table: its definition, and that nothing is measured twice."""

import pickle
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.layers import GDN
from torch import Tensor, nn

from licquant.allocate.probe import Probe
from licquant.allocate.sensitivity import (
    ACTIVATIONS,
    WEIGHTS,
    Change,
    Measuring,
    Sensitivity,
    Wanted,
    draw_crops,
    measure_sensitivity,
    table_key,
)
from licquant.errors import DataError
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import Statistics, collect_statistics
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import layer_names, uniform_plan
from licquant.quant.ranges import min_max
from licquant.quant.rd import evaluate_float
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior

WIDTHS = (3, 6)
BOTH = {WEIGHTS: WIDTHS, ACTIVATIONS: WIDTHS}
LMBDA = 0.01


@cache
def made() -> tuple[TracedModel, Statistics, Tensor]:
    traced, images = trace_model(hand_made()), dead_leaves(2, 64)
    return traced, collect_statistics(traced, images), draw_crops(images, count=1, side=64)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that are measured, as they are."""
    calls: list[str] = []
    for name in ("with_weights", "with_activations"):
        method = getattr(Probe, name)

        def count(self, quantized, part, step, method=method):
            calls.append(step.name)
            return method(self, quantized, part, step)

        monkeypatch.setattr(Probe, name, count)
    return calls


def entries(traced: TracedModel, widths: int = len(WIDTHS)) -> int:
    return widths * (len(layer_names(traced)) + sum(step.has_weights for step in traced.layers))


def test_zeta_is_the_relative_increase_of_the_loss():
    traced, statistics, crops = made()
    table = measure_sensitivity(Measuring(traced, statistics, crops), BOTH)
    with torch.no_grad():
        base = float(evaluate_float(traced, crops).loss(LMBDA))
        quantized = insert_quantizers(traced, uniform_plan(traced, 3, 8), statistics)
        step = next(s for s in traced.graphs["g_s"] if s.name == "g_s.3")
        loss = float(Probe(traced, crops).with_weights(quantized, "g_s", step).loss(LMBDA))
    assert table.base.loss(LMBDA) == pytest.approx(base)
    assert table.zeta("g_s.3", WEIGHTS, 3, LMBDA) == pytest.approx((loss - base) / base, abs=1e-6)
    assert table.zeta("g_s.3", WEIGHTS, 3, LMBDA) > 0
    # The synthesis has no part in the rate, the hyper synthesis none in the distortion.
    assert table.changes["g_s.3", WEIGHTS, 3].rate == 0
    assert table.changes["h_s.2", WEIGHTS, 3].distortion == 0
    assert table.changes["h_s.2", WEIGHTS, 3].rate != 0


def test_what_is_measured():
    traced, statistics, crops = made()
    table = measure_sensitivity(Measuring(traced, statistics, crops), dict.fromkeys(BOTH, (6, 3, 3, 1, 17)))
    assert list(table.layers) == layer_names(traced)
    assert len(table.changes) == entries(traced)
    assert all(table.widths(name, WEIGHTS) == list(WIDTHS) for name in table.layers)  # it has no products or sigmoids
    assert all(table.widths(name, ACTIVATIONS) == list(WIDTHS) for name in table.layers)


def test_one_table_serves_every_lambda():
    table = Sensitivity(("a",), Change(1.0, 100.0), {("a", WEIGHTS, 4): Change(0.5, 10.0)})
    assert table.zeta("a", WEIGHTS, 4, 0.01) == pytest.approx((0.5 + 0.1) / (1 + 1))
    assert table.zeta("a", WEIGHTS, 4, 0.1) == pytest.approx((0.5 + 1) / (1 + 10))


def test_the_second_time_nothing_is_measured(tmp_path: Path, counted: list[str]):
    traced, statistics, crops = made()
    first = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path / "new")
    assert len(counted) == entries(traced)
    counted.clear()
    again = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path / "new")
    assert counted == []
    assert again.changes == first.changes
    assert (again.base, again.layers) == (first.base, first.layers)


def test_an_interrupted_measurement_goes_on(tmp_path: Path, counted: list[str]):
    traced, statistics, crops = made()
    whole = measure_sensitivity(Measuring(traced, statistics, crops), BOTH)
    counted.clear()

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path, on_progress=stop)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-9])  # the last line cut short, as by a full disk
    counted.clear()
    told: list[tuple[int, int]] = []
    resumed = measure_sensitivity(
        Measuring(traced, statistics, crops), BOTH, cache=tmp_path, on_progress=lambda *done: told.append(done)
    )
    assert len(counted) == entries(traced) - 6
    assert told == [(n, entries(traced)) for n in range(7, entries(traced) + 1)]
    assert resumed.changes == whole.changes
    counted.clear()
    assert measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path).changes == whole.changes
    assert counted == []


def test_further_widths_are_added(tmp_path: Path, counted: list[str]):
    traced, statistics, crops = made()
    measure_sensitivity(Measuring(traced, statistics, crops), dict.fromkeys(BOTH, (6,)), cache=tmp_path)
    counted.clear()
    told: list[tuple[int, int]] = []
    table = measure_sensitivity(
        Measuring(traced, statistics, crops),
        dict.fromkeys(BOTH, (3,)),
        cache=tmp_path,
        on_progress=lambda *done: told.append(done),
    )
    assert len(counted) == entries(traced, 1)
    assert told[-1] == (entries(traced, 1), entries(traced, 1))  # of what was asked for
    assert table.widths("g_a.0", WEIGHTS) == [3, 6]


def test_other_weights_data_or_settings_have_another_table():
    traced, statistics, crops = made()
    key = table_key(traced, statistics, crops, None)
    assert key == table_key(trace_model(hand_made()), statistics, crops, QuantizerSettings())
    other = trace_model(hand_made())
    with torch.no_grad():
        other.model.g_s[0].bias[0] += 1e-6
    changed = {
        key,
        table_key(other, statistics, crops, None),
        table_key(traced, statistics, crops + 1e-3, None),
        table_key(traced, collect_statistics(traced, dead_leaves(1, 64, seed=9)), crops, None),
        table_key(traced, statistics, crops, QuantizerSettings(range_method=min_max)),
        table_key(traced, statistics, crops, QuantizerSettings(per_channel=False)),
    }
    assert len(changed) == 6


def test_another_activation_function_has_another_table():
    """Neither tensors nor ranges, here, tell it."""
    traced, statistics, crops = made()
    other = hand_made()
    other.g_s[1].negative_slope = 0.1
    assert all(torch.equal(tensor, traced.model.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert table_key(trace_model(other), statistics, crops, None) != table_key(traced, statistics, crops, None)


@pytest.mark.parametrize(("kind", "name", "value"), [(nn.Conv2d, "stride", (1, 1)), (GDN, "inverse", True)])
def test_other_strides_and_directions_have_another_table(kind, name, value, monkeypatch):
    traced, crops = trace_model(small_hyperprior()), torch.zeros(1)
    key = table_key(traced, {}, crops, None)
    module = next(step.module for step in traced.layers if isinstance(step.module, kind))
    assert getattr(module, name) != value
    monkeypatch.setattr(module, name, value)
    assert table_key(traced, {}, crops, None) != key


def test_a_damaged_table_is_said_and_what_it_lacks_measured(tmp_path: Path, counted: list[str], caplog):
    traced, statistics, crops = made()
    whole = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace('"bits":', '"bits":1')  # still JSON, of another width
    lines[5] = ""
    path.write_text("\n".join(lines))
    counted.clear()
    again = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path)
    assert again.changes == whole.changes
    assert len(counted) == 2
    assert str(path) in caplog.text


def test_crops_are_pieces_of_different_images():
    images = [np.full((100 + 40 * n, 150, 3), 10 * n, np.uint8) for n in range(5)]
    crops = draw_crops(images, count=5, side=256)
    assert crops.shape == (5, 3, 64, 64)  # as the smallest image allows
    assert sorted(float(v) for v in (crops[:, 0, 0, 0] * 255).round()) == [0, 10, 20, 30, 40]
    assert torch.equal(crops, draw_crops(images, count=5, side=256))
    noise = [np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)]
    crops = draw_crops(noise, count=2, side=64)
    assert not torch.equal(crops[0], crops[1])
    pixels = (crops[0] * 255).round().byte().permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(noise[0], (64, 64, 3))[:, :, 0]
    assert (windows == pixels).all((2, 3, 4)).sum() == 1


@pytest.mark.parametrize("images", [[], [np.zeros((63, 200, 3), np.uint8)]])
def test_images_that_are_too_small_are_refused(images):
    with pytest.raises(DataError, match="at least 64x64"):
        draw_crops(images)


def test_measurements_sent_away_are_those_made_here(tmp_path: Path):
    """The same table, bit for bit, whatever the order of what comes back; nothing is sent that can be computed."""
    traced, statistics, crops = made()
    here = measure_sensitivity(Measuring(traced, statistics, crops), BOTH)

    def spread(measuring: Measuring, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, Change]]:
        sent = pickle.dumps(measuring)
        assert len(sent) == len(pickle.dumps(Measuring(*measuring.__getstate__().values())))  # nothing that is computed
        there = pickle.loads(sent)
        yield from ((one, there(one)) for one in reversed(wanted))

    away = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path, spread=spread)
    assert (away.base, away.changes, away.layers) == (here.base, here.changes, here.layers)
    again = measure_sensitivity(Measuring(traced, statistics, crops), BOTH, cache=tmp_path)
    assert again.changes == here.changes


def test_activations_are_measured_only_where_they_may_change(counted: list[str]):
    traced, statistics, crops = made()
    table = measure_sensitivity(Measuring(traced, statistics, crops), {WEIGHTS: [3, 6], ACTIVATIONS: [8]})
    assert (table.widths("g_a.0", WEIGHTS), table.widths("g_a.0", ACTIVATIONS)) == ([3, 6], [8])
    assert len(counted) == entries(traced, 1) + sum(step.has_weights for step in traced.layers)
