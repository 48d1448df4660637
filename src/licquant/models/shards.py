"""A checkpoint in several files, for places that limit the size of one.

``model.pt`` in two shards is ``model-1of2.pt`` and ``model-2of2.pt``: state dicts with disjoint keys, whose
union is the model's state dict. ``model.pt`` itself does not exist then; commands are given that name all the same.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from licquant.config import parse_json
from licquant.digests import file_sha256
from licquant.errors import ModelError


def shard_path(checkpoint: Path, number: int, count: int) -> Path:
    """The file of shard ``number``, 1 to ``count``."""
    return checkpoint.with_name(f"{checkpoint.stem}-{number}of{count}{checkpoint.suffix}")


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint: itself, or its shards in order.

    Raises ``ModelError`` if there is neither, if shards are missing, and for the name of one shard, which is no model.
    """
    try:
        found = [checkpoint] if checkpoint.is_file() else shard_paths(checkpoint)
    except (OSError, ValueError) as error:  # a name that no file can have
        raise ModelError(f"{str(checkpoint)[:80]!r}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise ModelError(f"{checkpoint}: there is no such file")
    whole = whole_of(checkpoint)
    if whole is not None:
        raise ModelError(f"{checkpoint}: is one shard of a checkpoint; give the name of the whole, {whole.name}")
    return found


def checkpoint_sha256(checkpoint: Path) -> str:
    """What names a checkpoint, ``sha256`` of its model card (``joint_sha256``); errors as ``checkpoint_files``."""
    return joint_sha256(file_sha256(path) for path in checkpoint_files(checkpoint))


def joint_sha256(hashes: Iterable[str]) -> str:
    """The hash (hex) of a checkpoint from those of its files: of the one file, or of the shards' in a row."""
    first, *others = hashes
    return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first


def shard_paths(checkpoint: Path) -> list[Path]:
    """The shards of ``checkpoint`` in order, none if it has none.

    Raises ``ModelError`` unless they are one whole set, the one that the model card beside them describes.
    """
    found = _matches(checkpoint)
    if not found:
        return []
    counts = {int(match[2]) for match in found}
    numbers = sorted(int(match[1]) for match in found)
    if len(counts) > 1:
        raise ModelError(f"{checkpoint}: its shards are of several sets; keep one of them")
    (count,) = counts
    if numbers != list(range(1, count + 1)):
        raise ModelError(f"{checkpoint}: only shards {', '.join(map(str, numbers))} of {count} are there")
    paths = [shard_path(checkpoint, number, count) for number in numbers]
    _check_against_card(checkpoint, paths)
    return paths


def files_of_shards(checkpoint: Path) -> set[Path]:
    """Every file that is named like a shard of ``checkpoint``, of whatever set."""
    return {checkpoint.with_name(match.string) for match in _matches(checkpoint)}


def whole_of(shard: Path) -> Path | None:
    """The checkpoint that a file is named like a shard of, if it is one of several."""
    match = re.fullmatch(r"(.+)-\d+of(\d+)", shard.stem)
    return shard.with_name(match[1] + shard.suffix) if match and int(match[2]) > 1 else None


def _matches(checkpoint: Path) -> list[re.Match[str]]:
    pattern = re.compile(re.escape(checkpoint.stem) + r"-(\d+)of(\d+)" + re.escape(checkpoint.suffix))
    folder = checkpoint.parent
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [match for name in names if (match := pattern.fullmatch(name))]


def _check_against_card(checkpoint: Path, paths: Iterable[Path]) -> None:
    """Shards are written one by one, the card last: a crash in between leaves files of two models."""
    try:
        hashes = parse_json(checkpoint.with_suffix(".json").read_text(encoding="utf-8")).get("shards")
    except (OSError, ValueError, AttributeError):
        return  # no card to compare with
    if hashes is not None and not isinstance(hashes, dict):
        raise ModelError(f"{checkpoint}: what the model card says of its shards cannot be read")
    for path in paths:
        if hashes is not None and hashes.get(path.name) != file_sha256(path):
            raise ModelError(f"{path}: is not the shard that the model card describes; export the model again")


def merge_shards(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The union of shards' state dicts; ``ModelError`` if a key is in more than one."""
    merged: dict[str, Tensor] = {}
    for state in states:
        twice = merged.keys() & state.keys()
        if twice:
            raise ModelError(f"shards that do not belong together: {min(twice)} is in more than one")
        merged.update(state)
    return merged
