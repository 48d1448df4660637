"""Block-by-block reconstruction: what it learns is what is lowered, and it lowers the loss."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from compressai.models import ScaleHyperprior

from licquant.errors import DataError
from licquant.images import RGB
from licquant.lower import lower_model
from licquant.models.trace import TracedModel, trace_model
from licquant.program.arithmetic import Ints
from licquant.quant.after_training import rdo_ptq as module
from licquant.quant.after_training.rdo_ptq import _Codec, _SoftLayer, all_blocks, blocks_of, rdo_ptq
from licquant.quant.after_training.reconstruct import CalibrationCrops
from licquant.quant.calibrate import collect_statistics
from licquant.quant.constants import integer_weight
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior

LMBDA = 0.01
STEPS = 20


@dataclass
class Case:
    model: ScaleHyperprior
    images: list[RGB]
    traced: TracedModel
    quantized: QuantizedModel

    def integers(self) -> dict[str, Ints]:
        parts = self.quantized.parts.values()
        return {step.name: integer_weight(part, step) for part in parts for step in part.graph if step.has_weights}

    def loss(self) -> float:
        """Above the float model's, on crops that nothing was learned on."""
        crops = CalibrationCrops(self.images, seed=1)
        with torch.no_grad():
            batches = [crops.draw() for _ in range(4)]
            losses = [
                evaluate_quantized(self.quantized, x).loss(LMBDA) - evaluate_float(self.traced, x).loss(LMBDA)
                for x in batches
            ]
        return float(sum(losses)) / len(losses)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """3-bit weights and 8-bit activations on a pool of two batches."""
    monkeypatch.setattr(module, "POOL", 2)
    model, images = small_hyperprior(), dead_leaves(4, 128)
    traced = trace_model(model)
    statistics = collect_statistics(traced, images)
    return Case(model, images, traced, insert_quantizers(traced, uniform_plan(traced, 3, 8), statistics))


def test_blocks_are_layers_with_their_gdn() -> None:
    case = trace_model(small_hyperprior())
    names = {name: [[s.name for s in block] for block in blocks_of(graph)] for name, graph in case.graphs.items()}
    assert names["g_a"] == [["g_a.0", "g_a.1"], ["g_a.2", "g_a.3"], ["g_a.4", "g_a.5"], ["g_a.6"]]
    assert names["h_a"] == [["h_a.abs", "h_a.0"], ["h_a.2"], ["h_a.4"]]
    for graph in trace_model(hand_made()).graphs.values():
        assert [step for block in blocks_of(graph) for step in block] == list(graph)
        assert [sum(s.has_weights for s in block) for block in blocks_of(graph)] == [1] * len(blocks_of(graph))


def test_the_synthesis_comes_last(case: Case) -> None:
    order = list(dict.fromkeys(part.graph.name for part, _ in all_blocks(case.quantized)))
    assert order == ["g_a", "h_a", "h_s", "g_s"]


def test_no_steps_round_to_nearest(case: Case) -> None:
    before = case.integers()
    rdo_ptq(case.quantized, case.images, LMBDA, 0)
    after = case.integers()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_learned_is_lowered(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after scales before and inside a block have moved; everything else is as it was."""
    chosen: dict[str, Ints] = {}
    decide = _SoftLayer.chosen

    def remember(layer: _SoftLayer) -> torch.Tensor:
        integers = decide(layer)
        chosen[layer.name] = np.maximum(integers, 0).numpy() if layer.kind == "gdn" else integers.numpy()
        return integers

    monkeypatch.setattr(_SoftLayer, "chosen", remember)
    before = case.integers()
    scales = {name: p.detach().clone() for name, p in case.quantized.named_parameters() if "log_scale" in name}
    biases = [layer.bias.clone() for part in case.quantized.parts.values() for layer in part.layers.values()]
    told: list[int] = []
    rdo_ptq(case.quantized, case.images, LMBDA, 4, told.append)

    lowered = lower_model(case.quantized)
    operations = {op.name: op for part in lowered.parts.values() for op in part.operations}
    for name, integers in chosen.items():
        operation = operations[name]
        weight = operation.gamma if hasattr(operation, "gamma") else operation.weight  # type: ignore[attr-defined]
        assert np.array_equal(weight, integers)
    assert set(chosen) == set(before)
    assert told == list(range(1, 4 * len(all_blocks(case.quantized)) + 1))
    moved = {name for name, p in case.quantized.named_parameters() if name in scales and not p.equal(scales[name])}
    assert len(moved) >= 10
    for part in case.quantized.parts.values():
        assert not part.tensors[part.graph.output].log_scale.requires_grad
    layers = [layer for part in case.quantized.parts.values() for layer in part.layers.values()]
    assert all(type(layer) is not _SoftLayer for layer in layers)
    assert all(layer.bias.equal(bias) for layer, bias in zip(layers, biases, strict=True))
    assert all(p.requires_grad and p.grad is None for p in case.model.parameters())


def test_the_loss_falls(case: Case) -> None:
    before = case.loss()
    rdo_ptq(case.quantized, case.images, LMBDA, STEPS)
    assert case.loss() < 0.7 * before


def test_what_is_kept_is_what_would_be_computed(case: Case) -> None:
    """With every block carried through and nothing learned, the last loss is the quantized codec's own."""
    batch = CalibrationCrops(case.images, 0).draw()
    codec = _Codec(case.quantized, [batch], LMBDA)
    losses = []
    for part, block in all_blocks(case.quantized):
        codec.enter(part, block)
        losses.append(float(codec.loss(0).detach()))
        codec.leave()
    expected = float(evaluate_quantized(case.quantized, batch).loss(LMBDA).detach())
    assert losses[-1] == pytest.approx(expected, rel=1e-6)
    assert len(set(losses)) >= 8  # the blocks do make a difference


def test_runs_repeat(case: Case) -> None:
    start = {name: value.clone() for name, value in case.quantized.state_dict().items()}
    results = []
    for images in (case.images, case.images, case.images[::-1]):
        case.quantized.load_state_dict(start)
        rdo_ptq(case.quantized, images, LMBDA, 3)
        results.append(case.integers())
    same, other = ([np.array_equal(results[0][n], result[n]) for n in result] for result in results[1:])
    assert all(same)
    assert not all(other)


def test_images_too_small_are_refused(case: Case) -> None:
    with pytest.raises(DataError, match="64x64"):
        rdo_ptq(case.quantized, [np.zeros((40, 200, 3), np.uint8)], LMBDA, 1)
