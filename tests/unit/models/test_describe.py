"""What ``licquant models`` lists."""

import json

import pytest

from licquant.commands import app as cli
from licquant.models import describe as module
from licquant.models.describe import describe
from licquant.models.trace import trace_model
from tests.models_for_tests import small_model


def test_figures_by_hand():
    """N = 8, M = 12; one position of y is 256 pixels, one of z 4096."""
    model = small_model("mbt2018")
    found = describe("mbt2018", {"N": 8, "M": 12}, trace_model(model))
    assert found.family == "autoregressive"
    assert found.parameters == sum(p.numel() for p in model.parameters())
    h_s = 8 * 12 * 25 / 4096 + 12 * 18 * 25 / 1024 + 18 * 24 * 9 / 256
    context, parameters = 12 * 24 * 12 / 256, (48 * 40 + 40 * 32 + 32 * 24) / 256
    assert abs(found.exact_macs - (h_s + context + parameters)) < 1e-9
    g_s = 12 * 8 * 25 / 256 + 8 * 8 * 25 / 64 + 8 * 8 * 25 / 16 + 8 * 3 * 25 / 4 + 8 * 8 * (1 / 64 + 1 / 16 + 1 / 4)
    assert abs(found.decode_macs - found.exact_macs - g_s) < 1e-9


def test_command_lists_models(monkeypatch, capsys):
    monkeypatch.setattr(module, "SUPPORTED", ("bmshj2018-factorized",))
    with pytest.raises(SystemExit):
        cli.main(["models", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert (found["family"], found["widths"], found["exact_macs"]) == ("factorized", {"N": 128, "M": 192}, 0)
