"""tools/plan_of_sums.py: more bits for what a residual network adds to, and for nothing else."""

import json
from pathlib import Path

import pytest

from licquant.config import Plan
from licquant.train import architectures, export
from licquant.train.card import write_card
from tools import plan_of_sums


def test_sums_of_the_transforms_have_more_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, widths = "cheng2020-anchor", {"N": 8}
    checkpoint, output = tmp_path / "model.pt", tmp_path / "plan.json"
    weights = dict(architectures.build(name, widths).named_parameters())
    export.write_checkpoint(
        checkpoint, export.finished_state(name, widths, {n: w.detach() for n, w in weights.items()})
    )
    write_card(checkpoint, {"model": name, "lmbda": 0.01})
    monkeypatch.setattr("sys.argv", ["plan_of_sums", str(checkpoint), "10", "-o", str(output)])
    plan_of_sums.main()
    plan = Plan.from_json(json.loads(output.read_text()))
    wide = {layer for layer, bits in plan.items() if bits.activation == 10}
    assert len(wide) > 10
    assert all(".add" in layer and layer.startswith(("g_a", "g_s")) for layer in wide)
    assert {bits.activation for layer, bits in plan.items() if layer not in wide} == {8}
    assert {bits.weight for _, bits in plan.items()} == {8, None}
