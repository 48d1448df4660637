"""What takes long to make and is kept for the next time: decoded images, measured tables, parts (``ready``).

    KIND-CODE-CONTENT.SUFFIX    KIND: what it is, see ``KINDS``    CODE: a hash of the code that makes it
                                CONTENT: a hash of everything that it is made from

Whatever changes gives another name, so what is found is what would be made. Records are lines of JSON, each behind a
hash of it; a file is written aside and renamed, or grows by whole lines, so two processes at once do no harm. What is
damaged all the same, the disk's doing, is said and made again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licquant import __version__
from licquant.errors import LicquantError
from licquant.images import write_atomically

READY = "ready"
# What is kept → the modules that make it; for what a start is to find, whole packages: that takes no looking.
KINDS: Mapping[str, tuple[str, ...]] = {
    READY: ("program", "codec"),
    "pixels": ("licquant.train.pixels",),
    "sensitivity": ("licquant.allocate.sensitivity",),
    "bytes": ("licquant.allocate.costs", "licquant.lower"),
    "hessian": ("licquant.allocate.hessian",),
}

_LOG = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parent
_DISTRIBUTIONS = {"PIL": "pillow"}  # where a library is not named like the module
_NAME = re.compile(rf"({'|'.join(KINDS)})-([0-9a-f]{{12}})-[0-9a-f]{{32}}\.[a-z0-9]+")
# Of versions whose names had no hash of the code, and of writing that was cut short.
_OLD_NAME = re.compile(r"()()[0-9a-f]{32}\.(?:u8|json)|(sensitivity|bytes|hessian)()-[0-9a-f]{32}[-.].*json[l]?")
_UNFINISHED = re.compile(r"\.licquant-[0-9a-f]{16}\.tmp")
_UNFINISHED_SECONDS = 86_400  # younger ones may still be written


def cache_folder(given: Path | None = None) -> Path:
    """As given, else ``LICQUANT_CACHE``, else ``licquant`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    own = given or os.environ.get("LICQUANT_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "licquant").expanduser()


# --- entries ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One kept result: records, anything that JSON holds. path: its file; None: nothing is found, nothing kept."""

    path: Path | None

    def read(self) -> list[Any]:
        """The records that are there; damaged ones are left out, and said (``licquant.cache``, a logger)."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path else []
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self.path, "read", error) from error
        texts = [_unsealed(line) for line in lines if line]
        records = [json.loads(text) for text in texts if text]
        if len(records) < len(texts):
            self.say_damaged()
            self.write(*records)
        return records

    def say_damaged(self) -> None:
        """Tell that what was kept is not used."""
        _LOG.warning("%s: cut short or damaged; what it lacks is made again", self.path)

    def write(self, *records: object) -> None:
        """Keep these records in place of all others."""
        if self.path is not None:
            self._make_folder()
            write_atomically(self.path, "\n".join(map(_sealed, records)).encode())

    def append(self, record: object) -> None:
        """Keep one more record."""
        if self.path is not None:
            self._make_folder()
            try:
                with self.path.open("ab", buffering=0) as file:  # one call writes all of it, or is cut short
                    file.write(f"\n{_sealed(record)}".encode())  # a new line first: the last one may be cut short
            except OSError as error:
                raise _unusable(self.path, "written", error) from error

    def _make_folder(self) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path.parent, "made", error) from error


def entry(folder: Path | None, kind: str, *content: object) -> Entry:
    """The entry for what is made from ``content``, anything that JSON holds; one of no file without a folder."""
    return Entry(None if folder is None else folder / f"{name_of(kind, *content)}.jsonl")


def name_of(kind: str, *content: object) -> str:
    """KIND-CODE-CONTENT, see the top."""
    return f"{kind}-{_version_of(kind)}-{hashlib.sha256(_text(content).encode()).hexdigest()[:32]}"


def _unusable(path: Path | None, how: str, error: OSError) -> LicquantError:
    return LicquantError(f"{path}: cannot be {how}: {error.strerror or error}; see --cache")


def _text(record: object) -> str:
    return json.dumps(record, separators=(",", ":"))


def _sealed(record: object) -> str:
    text = _text(record)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}"


def _unsealed(line: str) -> str | None:
    """The record of a line as JSON; None if the line is not what was written."""
    seal, _, text = line.partition(" ")
    return text if text and hashlib.sha256(text.encode()).hexdigest()[:16] == seal else None


# --- the version of the code --------------------------------------------------------------------------------


def _version_of(kind: str) -> str:
    return packages_version(KINDS[kind]) if kind == READY else code_version(KINDS[kind])


@functools.cache
def packages_version(packages: Sequence[str]) -> str:
    """12 hex digits of a hash of all modules of these packages below ``licquant``, and of its version."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(path for name in packages for path in (_PACKAGE / name).rglob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(source)} ".encode() + source)
    return digest.hexdigest()[:12]


@functools.cache
def code_version(modules: Sequence[str]) -> str:
    """12 hex digits of a hash of these modules of licquant, of those that they import, directly or not, and of the
    versions of the libraries in use there: another version of the code has another, and nobody needs to think of it."""
    sources: dict[str, bytes] = {}
    libraries: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in sources:  # what is imported from a module need not be one
            continue
        sources[name] = path.read_bytes()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imports(sources[name], package):
            waiting.append(imported)
            libraries.add(imported.partition(".")[0])
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name} {len(sources[name])} ".encode() + sources[name])
    digest.update(_text([[name, _version(name)] for name in sorted(libraries | {"licquant"})]).encode())
    return digest.hexdigest()[:12]


def _file_of(name: str) -> Path | None:
    """The source of a module or package below ``licquant``, by its dotted name; None if it is not one."""
    root, *rest = name.split(".")
    if root != "licquant" or not rest:  # the package itself only passes on names
        return None
    place = _PACKAGE.joinpath(*rest)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever; those imported from a module with its name before them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _version(library: str) -> str | None:
    from importlib import metadata  # takes a while, and commands that code images do without

    try:
        return metadata.version(_DISTRIBUTIONS.get(library, library))
    except metadata.PackageNotFoundError:  # of the standard library
        return None


# --- what a folder holds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A file of a cache. kind: of ``KINDS``, or ``unfinished``;  current: whether today's code would find it."""

    path: Path
    kind: str
    current: bool
    bytes: int
    seconds: float  # since it was written


def kept_in(folder: Path) -> list[Kept]:
    """The files in ``folder`` that this module, or an earlier version of it, wrote there; nothing else."""
    found = []
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise _unusable(folder, "read", error) from error
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        seconds = max(time.time() - status.st_mtime, 0.0)
        if match := _NAME.fullmatch(path.name):
            current = match[2] == _version_of(match[1])
            found.append(Kept(path, match[1], current, status.st_size, seconds))
        elif match := _OLD_NAME.fullmatch(path.name):
            found.append(Kept(path, match[3] or "pixels", False, status.st_size, seconds))
        elif _UNFINISHED.fullmatch(path.name) and seconds > _UNFINISHED_SECONDS:
            found.append(Kept(path, "unfinished", False, status.st_size, seconds))
    return found


def clear(files: Sequence[Kept]) -> int:
    """Delete them; the bytes that this frees. ``LicquantError`` if one cannot be deleted."""
    for kept in files:
        try:
            kept.path.unlink(missing_ok=True)
        except OSError as error:
            raise LicquantError(f"{kept.path}: cannot be deleted: {error.strerror or error}") from error
    return sum(kept.bytes for kept in files)
