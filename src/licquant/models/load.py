"""CompressAI checkpoints in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressai.zoo.image import model_architectures
from torch import Tensor, nn

from licquant.errors import ModelError

# CompressAI registers them under these names; the lists of supported families are tested against them.
SUPPORTED = ("bmshj2018-hyperprior",)


def load_model(name: str, checkpoint: str | Path) -> nn.Module:
    """The model ``name`` (CompressAI's registered name) with the weights of a checkpoint, in eval mode, on the CPU.

    The checkpoint is a state dict or holds one under ``state_dict``, before or after ``update()``, stored in any
    floating-point type; the widths N and M are recognised from its shapes. The model's coding tables are up to
    date afterwards. Raises ``ModelError`` for an unknown name, an unreadable file or weights that do not fit.
    """
    if name not in model_architectures:
        raise ModelError(f"unknown model {name!r}: choose one of {', '.join(sorted(SUPPORTED))}")
    state = read_state(checkpoint)
    try:
        model = model_architectures[name].from_state_dict(state)
    except (KeyError, RuntimeError, IndexError, AttributeError, ValueError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ModelError(f"{checkpoint}: its weights do not fit {name}: {detail}") from error
    model.eval()
    model.update(force=True)
    return model


def read_state(checkpoint: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, floating-point tensors widened to float32.

    Only tensors are read, never pickled code. Raises ``ModelError`` if the file holds no state dict or a weight
    that is not finite.
    """
    try:
        record: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{checkpoint}: there is no such file") from error
    except Exception as error:  # damaged archives raise many kinds
        raise ModelError(f"{checkpoint}: not a PyTorch checkpoint that can be read safely") from error
    if isinstance(record, Mapping) and isinstance(record.get("state_dict"), Mapping):
        record = record["state_dict"]
    if not isinstance(record, Mapping) or not record or not all(isinstance(v, Tensor) for v in record.values()):
        raise ModelError(f"{checkpoint}: holds no state dict")
    state = {
        # "module." is what a model saved from inside DataParallel carries
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in record.items()
    }
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{checkpoint}: {broken[0]} holds values that are not finite")
    return state
