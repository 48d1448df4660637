"""The finished checkpoint: CompressAI's state dict after ``update()``, in one file or in shards."""

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from licquant.errors import LicquantError, TrainingError
from licquant.images import write_result
from licquant.models.shards import files_of_shards, shard_path
from licquant.models.small import SUFFIX, to_small
from licquant.train import architectures

# What a file holds beside the tensors' own bytes: names, and padding to 64 bytes.
_OVERHEAD_EACH = 512


def finished_state(name: str, widths: Mapping[str, int], averaged: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the model with the averaged weights and its coding tables built.

    The quantiles, from which the tables take their ranges, are solved for: the auxiliary loss moves them by a
    thousandth a step, which in a short training leaves them far from where they belong.
    """
    model = architectures.build(name, widths)
    missing, unexpected = torch.nn.Module.load_state_dict(model, dict(averaged), strict=False)
    parameters = {key for key, _ in model.named_parameters()}
    if unexpected or parameters & set(missing):
        raise TrainingError(f"the averaged weights are not those of {name}")
    model.eval()
    model.update(force=True, update_quantiles=True)
    return dict(model.state_dict())


def write_checkpoint(path: Path, state: Mapping[str, Tensor], max_bytes: float | None = None) -> dict[str, str]:
    """Write ``state`` to ``path``, or to shards of at most ``max_bytes`` each; return file name → SHA-256.

    A path in ``.licw`` gets a small checkpoint (``models/small.py``), any other one what ``torch.save`` writes.

    Files of an earlier checkpoint under the same name are removed once the new one is complete. Raises
    ``TrainingError`` if a file cannot be written, or if one tensor alone is larger than a shard may be.
    """
    parts = _split(state, max_bytes)
    count = len(parts)
    paths = [path] if count == 1 else [shard_path(path, number, count) for number in range(1, count + 1)]
    hashes = {}
    for target, part in zip(paths, parts, strict=True):
        data = to_small(part) if path.suffix == SUFFIX else to_bytes(part)
        try:
            write_result(target, data)
        except LicquantError as error:
            raise TrainingError(str(error)) from error
        hashes[target.name] = hashlib.sha256(data).hexdigest()
    for old in {path, *files_of_shards(path)} - set(paths):
        old.unlink(missing_ok=True)
    return hashes


def to_bytes(record: object) -> bytes:
    """What ``torch.save`` writes: the same bytes for the same record."""
    file = BytesIO()
    torch.save(record, file)
    return file.getvalue()


def _split(state: Mapping[str, Tensor], max_bytes: float | None) -> list[dict[str, Tensor]]:
    """The state in as few parts, in order of its keys, as the limit allows."""
    if max_bytes is None:
        return [dict(state)]
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in state.items():
        size = value.numel() * value.element_size() + _OVERHEAD_EACH
        if size > max_bytes:
            raise TrainingError(f"{key} alone has {size} bytes: more than one file may have")
        if filled + size > max_bytes:
            parts.append({})
            filled = 0
        parts[-1][key] = value
        filled += size
    return parts
