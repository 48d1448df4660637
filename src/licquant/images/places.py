"""Writing files of any kind: whole or not at all, and asked before long work whether they can be."""

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from licquant.errors import ExportError, LicquantError

# Enough to notice a full disk or a quota, little enough to be written in no time.
_PROBE_BYTES = 1 << 16


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all: to a temporary name in the same folder, then renamed.

    Raises ``LicquantError`` if the place cannot be written; nothing is left behind then, and a file that was
    there before is unchanged.
    """
    with written_aside(path) as file:
        file.write(data)


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path`` at the end: whole, or not at all if anything goes wrong.

    Raises ``LicquantError`` as ``write_atomically`` does.
    """
    path = Path(path)
    temporary = path.parent / f".licquant-{secrets.token_hex(8)}.tmp"
    try:
        # Renaming onto a device would replace it.
        if path.exists() and not path.is_file():
            raise LicquantError(f"{path}: cannot be written: not a regular file")
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a file
        raise LicquantError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after the rename it is gone already
            temporary.unlink()


def write_result(path: str | Path, data: bytes) -> None:
    """``write_atomically`` for what took long to make: if that fails, the data goes to a file in the system's folder
    for temporary ones, and the error, ``LicquantError`` still, names it."""
    try:
        write_atomically(path, data)
    except LicquantError as error:
        raise LicquantError(f"{error}; {_rescued(data, Path(path).suffix)}") from error


def _rescued(data: bytes, suffix: str) -> str:
    """Write the data somewhere else; say where, or why not."""
    try:
        plain = suffix if suffix.isascii() and len(suffix) < 8 else ""
        rescue = Path(tempfile.gettempdir()) / f"licquant-rescue-{secrets.token_hex(4)}{plain}"
        write_atomically(rescue, data)
    except (OSError, LicquantError) as error:
        return f"nor could it be kept elsewhere: {error}"
    return f"the result is kept as {rescue}"


def check_places(*paths: Path) -> None:
    """``LicquantError`` if a file cannot be written under one of the names: asked before long work, not after it.

    The folder must be there and take a file, the name must be one that the file system takes, and what stands there
    already must be a file.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise LicquantError(f"{path.parent}: there is no such folder")
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:
            regular = True
        except (OSError, ValueError) as error:
            raise LicquantError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
        if not regular:
            raise LicquantError(f"{path}: cannot be written: not a regular file")
    for folder in {path.parent for path in paths}:
        probe = folder / f".licquant-{secrets.token_hex(8)}.tmp"
        write_atomically(probe, bytes(_PROBE_BYTES))
        probe.unlink(missing_ok=True)


def utf8(text: str) -> bytes:
    """JSON in bytes; what stands for a byte of a file name that is not UTF-8 becomes JSON's escape for it."""
    return text.encode("utf-8", "backslashreplace")


def check_new_folder(folder: Path) -> None:
    """``ExportError`` unless the folder can be made, or is there and empty: asked before the work."""
    try:
        if folder.is_dir() and not any(folder.iterdir()):
            return
        if folder.exists() or folder.is_symlink():
            raise ExportError(f"{folder}: is there already, and not empty: delete it, or choose another")
        if not folder.absolute().parent.is_dir():
            raise ExportError(f"{folder.parent}: there is no such folder")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror or error}") from error


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Name → content as a new folder: all aside, and then the folder renamed; ``ExportError`` if it cannot be.

    A name may be that of a file in a folder of its own, one deep.
    """
    aside = folder.absolute().parent / f".licquant-{secrets.token_hex(8)}.tmp"
    try:
        aside.mkdir()
        for name, content in files.items():
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_bytes(content)
        os.replace(aside, folder)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a file
        raise ExportError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # after the rename it is gone already
