"""``licquant profile`` as a user runs it."""

import json

import pytest
import torch

from licquant.allocate.costs import latency_cost
from licquant.commands.app import main
from licquant.commands.profile import parse_size
from licquant.errors import LicquantError
from licquant.evaluate.latency import LatencyTable
from licquant.models.trace import trace_model
from licquant.quant.network import uniform_plan
from tests.models_for_tests import small_model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "bmshj2018-factorized", "mbt2018", "elic2022-official"])
def test_a_table_is_written_and_can_be_used(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("licquant.commands.profile.REPEATS", 2)
    model = small_model(name)
    torch.save(model.state_dict(), tmp_path / "c.pt")
    words = [
        "profile",
        "--checkpoint",
        tmp_path / "c.pt",
        *(("--model-args", '{"N": 12, "M": 16, "groups": [4, 4, 8]}') if name.startswith("elic") else ()),
        "--size",
        "128x64",
        "--threads",
        1,
        "-o",
        tmp_path / "t.json",
    ]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json"])
    assert not stop.value.code
    record = json.loads(capsys.readouterr().out)
    table = LatencyTable.load(tmp_path / "t.json")
    assert record["size"] == [128, 64] == list(table.size)
    check, whole = record["check"], record["check"]["whole"]
    assert len(check["measured_ms"]) == 5
    assert whole["predicted_ms"] > table.rest_ms
    assert whole["measured_ms"] > 0
    assert check["within"] == (
        max(map(abs, [*check["relative_errors"], whole["relative_error"]])) <= check["tolerance"]
    )
    traced = trace_model(model)
    costs = latency_cost(traced, table)
    assert costs.total(uniform_plan(traced, 8, 8)) > costs.constant > 0
    contexts = [step.name for part in traced.graphs if "context" in part for step in traced.graphs[part]]
    assert bool(contexts) == (name in ("mbt2018", "elic2022-official"))
    assert all(table.layers[layer].runs == 2 and table.layers[layer].at(8, 8) > 0 for layer in contexts)


@pytest.mark.parametrize("text", ["768", "768x", "0x512", "63x64", "9000x64", "axb", "-64x64", ""])
def test_bad_sizes(text):
    with pytest.raises(LicquantError, match="768x512"):
        parse_size(text)


def test_sizes():
    assert parse_size("768x512") == parse_size(" 768×512") == (768, 512)


def test_bad_input_is_one_line(tmp_path, capsys):
    for words, complaint in (
        (("--size", "big", "-o", "t.json"), "768x512"),
        (("-o", "no/t.json"), "no such folder"),
        (("-o", "t.json"), "no such file"),
    ):
        options = [str(tmp_path / w) if w.endswith("json") else w for w in words]
        with pytest.raises(SystemExit) as stop:
            main(["profile", "--checkpoint", str(tmp_path / "c.pt"), *options])
        assert stop.value.code == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert complaint in lines[0]
