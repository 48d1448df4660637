"""tools/add_attention.py: of an anchor model one with attention that does nearly the same, and can be trained."""

from pathlib import Path

import pytest
import torch
from compressai.layers import AttentionBlock

from licquant.models.load import load_model, read_state
from licquant.train import architectures, export
from licquant.train.card import read_card, write_card
from tools import add_attention


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    model = architectures.build(add_attention.ANCHOR, {"N": 8}, seed=1)
    checkpoint = tmp_path / "anchor.pt"
    state = export.finished_state(add_attention.ANCHOR, {"N": 8}, dict(model.named_parameters()))
    export.write_checkpoint(checkpoint, state)
    write_card(checkpoint, {"model": add_attention.ANCHOR, "lmbda": 0.01, "loss": "bpp + lmbda * 255^2 * MSE"})
    return checkpoint


def test_it_does_what_the_anchor_does(anchor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["add_attention", "-o", str(tmp_path / "out"), str(anchor)])
    add_attention.main()
    made = tmp_path / "out" / "cheng2020-attn-lambda0.0100.pt"
    card = read_card(made)
    assert card is not None
    assert (card["model"], card["N"], card["init"]) == (add_attention.ATTENTION, 8, "anchor")
    before, after = load_model(add_attention.ANCHOR, anchor), load_model(add_attention.ATTENTION, made)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y, latent = before.g_a(x), after.g_a(x)
        torch.testing.assert_close(latent, y, rtol=0.02, atol=0.02 * float(y.abs().max()))
        assert not torch.equal(latent, y)
        picture = before.g_s(y)
        torch.testing.assert_close(after.g_s(y), picture, rtol=0.02, atol=0.02 * float(picture.abs().max()))
    kept = [name for name in read_state(anchor) if not name.startswith(("g_a.", "g_s."))]
    state = read_state(made)
    assert all(torch.equal(read_state(anchor)[name], state[name]) for name in kept)


def test_masks_are_almost_shut_and_have_gradients(anchor: Path) -> None:
    model = add_attention.with_attention(read_state(anchor), {"N": 8})
    blocks = [block for block in model.modules() if isinstance(block, AttentionBlock)]
    assert len(blocks) == 4
    model.g_s(model.g_a(torch.rand(1, 3, 64, 64))).square().mean().backward()
    for block in blocks:
        assert torch.sigmoid(block.conv_b[-1].bias).max() < 0.003
        assert block.conv_b[-1].weight.grad.abs().sum() > 0
