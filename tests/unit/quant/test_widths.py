"""Which width every tensor of a residual network gets: what is added has bits to spare, products read the plan's."""

import pytest
from torch import nn

from licquant.config import Plan
from licquant.errors import PlanError
from licquant.lower.program import lower_part
from licquant.models.graph import ADDITION, INPUT
from licquant.models.trace import trace_model
from licquant.pipeline import Settings, quantize
from licquant.quant.calibrate import collect_statistics
from licquant.quant.grids import SPARE_BITS
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedPart, layer_names, uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made


def quantized_part(model: nn.Module, name: str, bits: int = 8) -> QuantizedPart:
    traced = trace_model(model)
    statistics = collect_statistics(traced, dead_leaves(2, 64))
    return insert_quantizers(traced, uniform_plan(traced, bits, bits), statistics).part(name)


@pytest.mark.parametrize("bits", [6, 8])
def test_what_is_added_has_bits_to_spare(bits: int):
    part = quantized_part(hand_made(), "g_a", bits)
    addition = next(step for step in part.graph if step.kind == ADDITION)
    assert [part.tensors[name].bits for name in addition.inputs] == [SPARE_BITS] * 2
    read = {step.name: part.tensors[step.inputs[0]].bits for step in part.graph if step.has_weights}
    assert read == {"g_a.0": bits, "g_a.2.first": bits, "g_a.2.second": bits, "g_a.3": bits}


def test_what_is_added_to_one_another_has_one_scale():
    """Through two blocks in a row: both sums are those of the integers, and only the last one's output is rounded."""
    model = hand_made()
    model.g_a = nn.Sequential(model.g_a[0], model.g_a[2], type(model.g_a[2])(8), model.g_a[3]).eval()
    part = quantized_part(model, "g_a")
    first, last = (step for step in part.graph if step.kind == ADDITION)
    added = [part.tensors[name] for name in {*first.inputs, *last.inputs}]
    assert len(added) == 4
    assert not any(tensor.log_scale.requires_grad for tensor in added)
    scales = [tensor.scale for tensor in added]
    assert all(scale.equal(scales[0]) for scale in scales)
    assert not part.tensors[last.name].scale.equal(scales[0])  # a convolution reads it in 8 bits
    add = next(op for op in lower_part(part).operations if op.name == first.name)
    assert all((multiplier == add.multipliers[0][0]).all() for multiplier in add.multipliers)
    assert (add.rescaling.ratio * add.multipliers[0] == 1).all()


def test_a_part_that_begins_with_a_residual_block():
    """The addition reads the part's input in 16 bits, the layers theirs, each brought from the fixed point once."""
    model = hand_made()
    first, block = model.g_s[0], model.g_s[2]
    model.g_s = nn.Sequential(type(block)(12), first, *list(model.g_s)[1:]).eval()
    part = quantized_part(model, "g_s")
    whole, narrow = (next(s for s in part.graph if s.name == f"g_s.{INPUT}{end}") for end in ("", "/copy"))
    assert whole.inputs == narrow.inputs == (INPUT,)
    assert (part.tensors[whole.name].bits, part.tensors[narrow.name].bits) == (SPARE_BITS, 8)


def test_a_plan_has_no_width_for_additions():
    """One from before is refused by name, and before minutes of calibration."""
    traced, told = trace_model(hand_made()), list[object]()
    assert not any("add" in name for name in layer_names(traced))
    plan = uniform_plan(traced, 8, 8)
    older = Plan({**plan.layers, "g_a.2.add": plan["g_a.0"]})
    with pytest.raises(PlanError, match=r"layers that the model lacks: g_a\.2\.add"):
        quantize(hand_made(), dead_leaves(2, 64), settings=Settings(plan=older), on_progress=lambda *a: told.append(a))
    assert not told
