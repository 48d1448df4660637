"""SHA-256 of files: what names a checkpoint in provenance, calibration and training images, and cached results.

Contents alone: neither names nor times, so a copy on another machine has the same digest, and a changed file another.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from licquant.errors import DataError


def file_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file; ``DataError`` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def contents_sha256(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) of the files' digests, in the order given; ``DataError`` if one cannot be read."""
    return hashlib.sha256(b"".join(bytes.fromhex(file_sha256(path)) for path in paths)).hexdigest()
