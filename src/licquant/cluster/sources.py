"""Where an item's bytes are: in a file, in an archive, at an address. The driver lists names, the workers read.

    /photos/a.png                        a file that every machine has
    s3://bucket/a.png                    an address, as fsspec reads them
    tar://a/b.png::/data/shard.tar       a member of a tar, as WebDataset has them (.tar, .tar.gz, .tgz)
    parquet://image/17::/data/p.parquet  a row of a column of bytes, or of records with ``bytes``, counted from 0

An archive may stand at an address, too. As a ``Path`` an address loses a slash; ``source_of`` gives it back.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from licquant.errors import DataError

_TARS, _PARQUET = (".tar", ".tar.gz", ".tgz"), ".parquet"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)


def source_of(path: Path) -> str:
    """What an item has: the address that a path stands for, or the file's absolute name."""
    found = None if path.exists() else _ADDRESS.fullmatch(str(path))
    if found is None:
        return os.path.abspath(path)
    scheme, rest = found[1], found[2]
    rest, inside, archive = rest.partition("::")
    archive = source_of(Path(archive)) if inside else ""
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest}{inside}{archive}"


def expand(given: Path, suffixes: Sequence[str]) -> dict[Path, Path] | None:
    """What an archive, or a folder at an address, holds of these suffixes: item → its name below the output.

    None for what is neither: a file or folder of this machine. A pattern is of archives where its end is theirs: what
    they hold keeps their place below the folder that has them all. ``DataError`` for what cannot be listed.
    """
    source = source_of(given)
    if not source.lower().endswith((*_TARS, _PARQUET)) and not _ADDRESS.fullmatch(source):
        return None
    if glob.has_magic(source) and not _ADDRESS.fullmatch(source) and not given.exists():
        return _of_pattern(source, suffixes)
    try:
        return _listed(source, suffixes)
    except ImportError:
        raise
    except Exception as error:  # every file system has its own
        raise DataError(f"{source}: cannot be listed: {_first_line(error)}") from error


def _of_pattern(pattern: str, suffixes: Sequence[str]) -> dict[Path, Path]:
    archives = [Path(found) for found in sorted(glob.glob(pattern, recursive=True))]
    if not archives:
        raise DataError(f"{pattern}: matches no file")
    top = os.path.commonpath([archive.parent for archive in archives])
    found: dict[Path, Path] = {}
    for archive in archives:
        items = expand(archive, suffixes) or {}
        found |= {item: Path(os.path.relpath(archive.parent, top), name) for item, name in items.items()}
    return found


def _listed(source: str, suffixes: Sequence[str]) -> dict[Path, Path]:
    import fsspec

    name = PurePosixPath(source).name
    if source.lower().endswith(_PARQUET):
        table = _parquet(source, _stamp(source))
        column, stem = _column_of_bytes(table), Path(name[: -len(_PARQUET)])
        rows = range(table.metadata.num_rows)
        return {Path(f"parquet://{column}/{row}::{source}"): stem / f"{row:08d}" for row in rows}
    if source.lower().endswith(_TARS):
        members = _meant(_tar(source, _stamp(source)).find(""), suffixes)
        stem = Path(re.sub(r"(\.tar)?\.\w+$", "", name))
        return {Path(f"tar://{member}::{source}"): stem / member for member in members}
    files, root = fsspec.url_to_fs(source)
    if not files.isdir(root):
        files.info(root)
        return {Path(source): Path(name)}
    below = _meant(files.find(root), suffixes)
    return {Path(files.unstrip_protocol(found)): Path(os.path.relpath(found, root)) for found in below}


def _meant(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Without hidden ones."""
    return sorted(
        name
        for name in names
        if PurePosixPath(name).suffix.lower() in suffixes and not any(p.startswith(".") for p in name.split("/"))
    )


@contextmanager
def local(source: str) -> Iterator[str]:
    """The item as a file of this machine, for as long as the block; ``DataError`` if it cannot be read."""
    found = _ADDRESS.fullmatch(source)
    if found is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="licquant-") as folder:
        path = Path(folder) / PurePosixPath(found[2].partition("::")[0]).name
        try:
            path.write_bytes(_contents(found[1], found[2], source))
        except Exception as error:  # every file system has its own
            raise DataError(f"{source}: cannot be read: {_first_line(error)}") from error
        yield str(path)


def _contents(scheme: str, rest: str, source: str) -> bytes:
    import fsspec

    inside, _, archive = rest.partition("::")
    if scheme == "tar":
        return bytes(_tar(archive, _stamp(archive)).cat_file(inside))
    if scheme == "parquet":
        column, _, row = inside.rpartition("/")
        return _cell(archive, _stamp(archive), column, int(row))
    with fsspec.open(source, "rb") as file:
        return bytes(file.read())


Stamp = tuple[int, int, int] | None


def _stamp(archive: str) -> Stamp:
    """What tells a file that was opened from another of its name; None for one at an address. ``OSError`` for none."""
    if _ADDRESS.fullmatch(archive):
        return None
    found = os.stat(archive)
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _tar(archive: str, stamp: Stamp) -> Any:
    """Its index is read once."""
    import fsspec

    return fsspec.filesystem("tar", fo=archive, skip_instance_cache=True)


@functools.lru_cache(maxsize=2)
def _parquet(archive: str, stamp: Stamp) -> Any:
    import fsspec
    from pyarrow import parquet

    return parquet.ParquetFile(fsspec.open(archive, "rb").open())


def _column_of_bytes(table: Any) -> str:
    """The only one; ``DataError`` if there is none or several."""
    import pyarrow as arrow

    binary = (arrow.types.is_binary, arrow.types.is_large_binary)
    names = []
    for field in table.schema_arrow:
        inner = field.type
        if arrow.types.is_struct(inner) and inner.get_field_index("bytes") >= 0:
            inner = inner.field("bytes").type
        if any(test(inner) for test in binary):
            names.append(field.name)
    if len(names) != 1:
        raise DataError(f"has {len(names)} columns of bytes{': ' if names else ''}{', '.join(names)}; one is needed")
    return str(names[0])


def _cell(archive: str, stamp: Stamp, column: str, row: int) -> bytes:
    table = _parquet(archive, stamp)
    for group in range(table.metadata.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if row < count:
            value = _group(archive, stamp, column, group)[row].as_py()
            value = value.get("bytes") if isinstance(value, dict) else value
            if value is None:
                raise DataError("no bytes are there")
            return bytes(value)
        row -= count
    raise DataError("there is no such row")


@functools.lru_cache(maxsize=1)
def _group(archive: str, stamp: Stamp, column: str, group: int) -> Any:
    return _parquet(archive, stamp).read_row_group(group, columns=[column]).column(0)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
