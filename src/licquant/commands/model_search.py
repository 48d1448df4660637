"""Which models there are without naming one: the embedded ones, those in ``LICQUANT_MODELS``, those beside a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from licquant.codec.files.artifact import MAGIC, artifact_id, blob_sizes, read_artifact_bytes
from licquant.errors import ArtifactError, LicquantError

VARIABLE = "LICQUANT_MODELS"
SUFFIX = ".licq"
_TAIL = 32  # bytes of the SHA-256 at the end of an artifact


def embedded() -> list[Path]:
    """The models that come with the package, in ascending λ: ``--quality`` numbers them from 1."""
    return in_order_of_lmbda(models_in(_assets()))


def of_quality(models: Sequence[Path], quality: int | None) -> Path:
    """The model of that number, from 1; the middle one for None. ``LicquantError`` for a number that is not there."""
    if not models:
        raise LicquantError("the embedded models are missing: install licquant from a complete source tree, or give -m")
    chosen = (len(models) + 1) // 2 if quality is None else quality
    if not 1 <= chosen <= len(models):
        raise LicquantError(f"--quality {chosen}: there are {len(models)} models here, so 1 to {len(models)}")
    return models[chosen - 1]


def models_in(folder: Path) -> list[Path]:
    """The .licq files directly in a folder, by name; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())
    except OSError:
        return []


def in_order_of_lmbda(models: Iterable[Path]) -> list[Path]:
    """In ascending λ, which is ascending rate; ``ArtifactError`` for a damaged file, or one that does not say its λ."""
    return sorted(models, key=lambda path: (_lmbda(path), path.name))


def lookup(identity: bytes, beside: Path) -> Path | None:
    """The model with this id, where coded images are in the folder ``beside``; None if it is not here."""
    groups: Iterator[list[Path]] = (models_in(place) if place.is_dir() else [place] for place in (*_named(), beside))
    for models in (models_in(_assets()), *groups):
        for path in models:
            if _identity(path) == identity:
                return path
    return None


def find(identity: bytes, file: Path | str, beside: Path) -> Path:
    """``lookup``, or ``ArtifactError`` that says which id is wanted and calls the coded image ``file``."""
    if found := lookup(identity, beside):
        return found
    places = ", ".join(["those embedded", *map(str, _named()), str(beside)])
    raise ArtifactError(
        f"{file}: coded with the model {identity.hex()}, which none of the models here is (looked at {places}): "
        f"give it with -m, or name its folder in {VARIABLE}"
    )


def _assets() -> Path:
    return Path(str(resources.files("licquant"))) / "assets"


def _named() -> list[Path]:
    return [Path(word) for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word]


def _identity(path: Path) -> bytes | None:
    """The id of an artifact, read from its end without looking at the rest; None for another file."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            file.seek(-_TAIL, os.SEEK_END)
            return artifact_id(file.read())
    except OSError:
        return None


def _lmbda(path: Path) -> float:
    try:
        header, _ = blob_sizes(read_artifact_bytes(path))
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    provenance = header.get("provenance")
    lmbda = provenance.get("lmbda") if isinstance(provenance, dict) else None
    if not isinstance(lmbda, int | float):
        raise ArtifactError(f"{path}: does not say its λ, by which the models of a folder are put in order")
    return float(lmbda)
