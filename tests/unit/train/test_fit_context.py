"""tools/fit_context.py: of a mean-scale model a joint one whose context alone was trained."""

import json
from pathlib import Path

import pytest
import torch

from licquant.models.load import load_model, read_state
from licquant.train import architectures, export
from licquant.train.card import write_card
from tests.unit.train.small import write_images
from tools import fit_context


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    widths = {"N": 8, "M": 12}
    model = architectures.build("mbt2018-mean", widths)
    checkpoint = tmp_path / "mean.pt"
    export.write_checkpoint(checkpoint, export.finished_state("mbt2018-mean", widths, dict(model.named_parameters())))
    write_card(checkpoint, {"model": "mbt2018-mean", "lmbda": 0.01})
    return checkpoint


def test_the_context_is_trained_and_nothing_else(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LICQUANT_CACHE", str(tmp_path / "cache"))
    data = write_images(tmp_path / "images", 4, side=272)
    arguments = ["--data", data, "-o", tmp_path / "out", "--steps", "100", parent]
    monkeypatch.setattr("sys.argv", ["fit_context", *map(str, arguments)])
    fit_context.main()
    rates = [json.loads(line)["y_bpp"] for line in capsys.readouterr().out.splitlines()]
    assert len(rates) == 2
    assert rates[1] < 0.9 * rates[0]
    before, after = read_state(parent), read_state(tmp_path / "out" / "mbt2018-lambda0.0100.pt")
    model = load_model("mbt2018", tmp_path / "out" / "mbt2018-lambda0.0100.pt")
    fresh = dict(architectures.build("mbt2018", {"N": 8, "M": 12}).named_parameters())
    for name, _ in model.named_parameters():
        new = name.startswith(fit_context.NEW)
        assert torch.equal(after[name], fresh[name] if new else before[name]) != new, name
