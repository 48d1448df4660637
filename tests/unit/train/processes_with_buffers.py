"""What two processes have in their buffers, which they begin with different values of: ``python -m`` this, FOLDER.

Fabric starts the second process; each writes FOLDER/RANK.json: its buffers after setup and after every step.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from licquant.quant.in_training.finetune import Finetuner, Task
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.train.command import make_fabric
from licquant.train.settings import RunOptions


class Offset(nn.Module):
    """A starting point, a buffer, and what is learned beside it."""

    figures = ("loss", "bpp", "distortion")

    def __init__(self, start: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2))
        self.register_buffer("start", torch.full((2,), start))
        self.register_buffer("count", torch.full((2,), int(start)))

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        loss = (self.start + self.offset).square().sum()
        return loss, loss.detach().repeat(3)


def main(folder: Path) -> None:
    recipe = FinetuneRecipe.from_mapping({"model": "none", "lmbda": 0.01, "steps": 2})
    fabric = make_fabric(RunOptions(folder, folder / "m.licq", accelerator="cpu", devices=2, threads=1))
    model = Offset(1.0 + fabric.global_rank)
    groups = [{"params": [model.offset], "share": 1.0}]
    stepper = Finetuner(fabric, recipe, Task(model, {}, model, groups))
    found: list[Any] = [[buffer.tolist() for buffer in model.buffers()]]
    for _ in range(recipe.steps):
        stepper.advance(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), fabric.global_rank)
        found.append([buffer.tolist() for buffer in model.buffers()])
    found.append(model.offset.tolist())
    (folder / f"{fabric.global_rank}.json").write_text(json.dumps(found))
    fabric.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
