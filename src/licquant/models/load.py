"""CompressAI checkpoints in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressai.models import Elic2022Official
from compressai.registry import MODELS
from torch import Tensor, nn

from licquant.errors import ModelError
from licquant.models.shards import checkpoint_files, merge_shards

# CompressAI registers them under these names; every one is tested.
SUPPORTED = (
    "bmshj2018-factorized",
    "bmshj2018-factorized-relu",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
    "cheng2020-anchor-checkerboard",
    "elic2022-official",
)


def load_model(name: str, checkpoint: str | Path) -> nn.Module:
    """The model ``name`` (CompressAI's registered name) with the weights of a checkpoint, in eval mode, on the CPU.

    The checkpoint is a state dict or holds one under ``state_dict``, before or after ``update()``, stored in any
    floating-point type, in one file or in shards (``models.shards``); the widths are recognised from its shapes. The
    model's coding tables are up to date afterwards. Raises ``ModelError`` for an unknown name, an unreadable file or
    weights that do not fit.
    """
    if name not in SUPPORTED:
        raise ModelError(f"unknown model {name!r}: choose one of {', '.join(sorted(SUPPORTED))}")
    state = read_state(checkpoint)
    try:
        model: Any = _elic(state) if name == "elic2022-official" else MODELS[name].from_state_dict(state)
    except (KeyError, RuntimeError, IndexError, AttributeError, ValueError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ModelError(f"{checkpoint}: its weights do not fit {name}: {detail}") from error
    model.eval()
    model.update(force=True)
    return model


def _elic(state: dict[str, Tensor]) -> nn.Module:
    """CompressAI's own ``from_state_dict`` knows the paper's channel groups only."""
    groups: list[int] = []
    while (key := f"latent_codec.y.latent_codec.y{len(groups)}.context_prediction.weight") in state:
        groups.append(state[key].shape[1])
    model = Elic2022Official(state["g_a.0.weight"].shape[0], sum(groups), groups)
    model.load_state_dict(state)
    return model


def read_state(checkpoint: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, in one file or in shards, floating-point tensors widened to float32.

    Only tensors are read, never pickled code. Raises ``ModelError`` if a file is missing, holds no state dict or a
    weight that is not finite, or if the shards are not one whole set.
    """
    return merge_shards(map(_read_file, checkpoint_files(Path(checkpoint))))


def _read_file(checkpoint: Path) -> dict[str, Tensor]:
    try:
        record: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
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
