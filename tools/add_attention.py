"""Make cheng2020-attn models of trained cheng2020-anchor ones: only the attention blocks are new.

    python -m tools.add_attention -o FOLDER ANCHOR.licw …

cheng2020-attn is cheng2020-anchor with two attention blocks in the analysis and two in the synthesis transform, each
of which adds a masked branch to its input: out = x + a(x) · sigmoid(b(x)). Everything else is taken over as it is, and
the masks begin almost shut, at a four hundredth, so that training starts where the anchor's ended. ``licquant train
--init`` then trains all together.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from compressai.layers import AttentionBlock
from torch import Tensor, nn

from licquant.digests import file_sha256
from licquant.models.load import read_state
from licquant.train import architectures
from licquant.train.card import read_card, write_card
from licquant.train.export import finished_state, write_checkpoint

ANCHOR, ATTENTION = "cheng2020-anchor", "cheng2020-attn"
SHUT = -6.0  # sigmoid: 0.0025


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for checkpoint in arguments.checkpoints:
        make(checkpoint, arguments.output)


def make(checkpoint: Path, folder: Path) -> Path:
    """Write the model and its card; where it is."""
    state, card = read_state(checkpoint), read_card(checkpoint) or {}
    widths = architectures.widths_of(ANCHOR, state, None, None)
    model = with_attention(state, widths)
    output = folder / f"{ATTENTION}-lambda{card['lmbda']:.4f}.pt"
    write_checkpoint(output, finished_state(ATTENTION, widths, dict(model.named_parameters())))
    write_card(output, {
        "model": ATTENTION, **widths, "lmbda": card["lmbda"], "loss": card["loss"], "steps": 0,
        "note": "the anchor with attention blocks whose masks are almost shut: to be trained", "init": checkpoint.stem,
        "init_sha256": file_sha256(checkpoint), "sha256": file_sha256(output), "complete": True,
    })  # fmt: skip
    return output


@torch.no_grad()
def with_attention(state: dict[str, Tensor], widths: dict[str, int]) -> Any:
    """The larger model with the smaller one's weights, its attention blocks drawn at random with masks almost shut."""
    anchor, model = (architectures.build(name, widths) for name in (ANCHOR, ATTENTION))
    architectures.load_weights(anchor, state, ANCHOR)
    for name, part in anchor.named_children():
        into = getattr(model, name)
        if name not in ("g_a", "g_s"):
            nn.Module.load_state_dict(into, dict(part.named_parameters()), strict=False)
            continue
        blocks = [block for block in into if not isinstance(block, AttentionBlock)]
        for block, trained in zip(blocks, part, strict=True):
            block.load_state_dict(trained.state_dict())
    for block in model.modules():
        if isinstance(block, AttentionBlock):
            mask = block.conv_b[-1]
            mask.weight.zero_()
            mask.bias.fill_(SHUT)
    return model


if __name__ == "__main__":
    main()
