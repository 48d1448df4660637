"""tools/train_in_minutes.py: a training that ends by the clock, and layers that compute what CompressAI's do."""

import json
from pathlib import Path

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import MaskedConv2d

from licquant.models.load import load_model
from tests.unit.train.small import write_images
from tools import train_in_minutes


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """CompressAI's own layers again afterwards."""
    monkeypatch.setattr(EntropyBottleneck, "forward", EntropyBottleneck.forward)
    monkeypatch.setattr(MaskedConv2d, "forward", MaskedConv2d.forward)


def test_layers_compute_what_compressai_computes(as_it_was: None) -> None:
    x = torch.randn(2, 6, 4, 5) * 4
    bottleneck, masked = EntropyBottleneck(6).eval(), MaskedConv2d(6, 8, 5, padding=2)
    theirs = [*bottleneck(x), masked(x)]
    train_in_minutes.without_waiting()
    place = masked.weight.data_ptr()
    ours = [*bottleneck(x), masked(x)]
    assert all(torch.equal(one, other) for one, other in zip(theirs, ours, strict=True))
    assert masked.weight.data_ptr() == place


def test_a_run_ends_by_the_clock_with_a_model_that_codes(
    as_it_was: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LICQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train_in_minutes, "LOG_EVERY", 5)
    monkeypatch.setattr(train_in_minutes, "WARMUP", 5)
    data, output = write_images(tmp_path / "images", 4, side=80), tmp_path / "model.licw"
    arguments = ["mbt2018", 0.01, 0.2, "--data", data, "-o", output, "--N", 8, "--M", 12, "--batch", 2, "--crop", 64]
    monkeypatch.setattr("sys.argv", ["train_in_minutes", *map(str, [*arguments, "--rate", 1e-3])])
    train_in_minutes.main()
    losses = [float(line.split("J ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0]
    made = json.loads(output.with_suffix(".json").read_text())
    assert made["steps"] >= 5 * len(losses) >= 10
    assert 12 <= made["seconds"] < 30
    assert made["complete"]
    model = load_model("mbt2018", output)
    assert model.aux_loss() < 1  # the quantiles are where they belong, whatever the time
    coded = model.compress(torch.rand(1, 3, 64, 64))
    assert model.decompress(coded["strings"], coded["shape"])["x_hat"].shape == (1, 3, 64, 64)
