"""What takes long at every start, kept ready for the next one: unpacked weights, compiled parts.

    ready-CODE-CONTENT.bin      CODE, CONTENT: as in ``cache.py``;  a SHA-256, and the bytes that it is of

Nothing depends on it: machines are tested in every process (``self_test.py``), what is missing, damaged or made by
other code is made again, and where nothing can be kept (a full disk, a home that is read-only) nothing is. Files are
written aside and renamed, so two processes that start at once do no harm. All together are bounded: those that have not
been read for longest go first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from licquant.cache import READY, cache_folder, name_of
from licquant.errors import LicquantError
from licquant.images import write_atomically

_LOG = logging.getLogger(__name__)
_HASH_BYTES = 32
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Ready:
    """Bytes that are made from ``content``, anything that JSON holds; without a folder none are found, none kept."""

    folder: Path | None = None
    content: tuple[object, ...] = ()

    def of(self, *content: object) -> Ready:
        """What is made from this, too."""
        return Ready(self.folder, (*self.content, *content))

    def read(self) -> memoryview | None:
        """The bytes, as they were written; None if they are not there."""
        if self.folder is None:
            return None
        try:
            data = self._path(self.folder).read_bytes()
            os.utime(self._path(self.folder))
        except OSError:
            return None
        found = memoryview(data)[_HASH_BYTES:]
        return found if hashlib.sha256(found).digest() == data[:_HASH_BYTES] else None

    def write(self, data: bytes) -> None:
        """Keep the bytes, if that is possible."""
        if self.folder is None or len(data) > _MOST_BYTES:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(self.folder), hashlib.sha256(data).digest() + data)
            _drop_oldest(self.folder)
        except (OSError, LicquantError) as error:
            _LOG.debug("%s: nothing is kept there: %s", self.folder, error)

    def _path(self, folder: Path) -> Path:
        return folder / f"{name_of(READY, *self.content)}.bin"


def usual_folder() -> Path | None:
    """``cache.cache_folder()``; None for a user who has no home."""
    try:
        return cache_folder()
    except RuntimeError:
        return None


def _drop_oldest(folder: Path) -> None:
    left = _MOST_BYTES
    status = {path: path.stat() for path in folder.glob(f"{READY}-*.bin")}
    for path in sorted(status, key=lambda path: -status[path].st_mtime):
        left -= status[path].st_size
        if left < 0:
            path.unlink(missing_ok=True)
