"""Which files a command reads and where it writes: files, folders with all below them, patterns, ``-`` for streams."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from licquant.errors import DataError, LicquantError
from licquant.images.folders import files_below, find_images, listed
from licquant.images.formats import READ_SUFFIXES

STREAM = "-"
LIST = ".txt"
# What an input stands for, with these suffixes: file → its name below the output; None: what its name says.
Expand = Callable[[Path, Sequence[str]], "dict[Path, Path] | None"]


@dataclass(frozen=True)
class Job:
    """One file to read and one to write; ``Path("-")`` is standard input or output."""

    source: Path
    target: Path


def plan(
    inputs: Sequence[Path], output: str, suffixes: Sequence[str], ending: str, expand: Expand = lambda *_: None
) -> list[Job]:
    """What to read and where to write it, in order, nothing twice.

    One file is written to ``output``, unless that is a folder or ends in a slash. Everything else goes into the
    folder ``output``, under the name of its source with ``ending`` as suffix, where sources of one name but for their
    suffixes keep theirs before it. What a folder holds keeps its place below it (several folders: below the folder
    that has them all), what a pattern finds keeps its place below the part without wildcards. A ``.txt`` file is a
    list, a path a line, as ``find_images`` has them.

    suffixes: of the files that are meant by a folder
    expand:   asked first

    ``DataError`` if there is nothing to read, ``LicquantError`` if two sources have one target.
    """
    if Path(STREAM) in inputs or output == STREAM:
        return [_streamed(inputs, output)]
    into_folder = output.endswith(os.sep) or Path(output).is_dir()
    expanded = {path: found for path in inputs if (found := _expanded(path, suffixes, expand)) is not None}
    several = len(inputs) > 1 or into_folder or bool(expanded)
    if not several and not inputs[0].is_dir() and not _is_pattern(inputs[0]):
        return [Job(inputs[0], Path(output))]
    if Path(output).exists() and not Path(output).is_dir():
        raise LicquantError(f"{output}: must be a folder, as what is written are several files")
    names = _relative_names(inputs, suffixes, expanded)
    known = {suffix.lower() for suffix in suffixes}
    bare = {path: name.with_suffix("") if name.suffix.lower() in known else name for path, name in names.items()}
    shared = Counter(bare.values())
    jobs = []
    for path, name in names.items():
        kept = bare[path] if shared[bare[path]] == 1 else name
        jobs.append(Job(path, Path(output) / kept.with_name(kept.name + ending)))
    _refuse_collisions(jobs)
    return jobs


def images_meant(given: Sequence[Path], expand: Expand = lambda *_: None) -> list[Path]:
    """The image files that are meant, as ``find_images`` has it, none twice; ``DataError`` for what is not there.

    expand: asked first
    """
    found: list[Path] = []
    for source in given:
        expanded = expand(source, READ_SUFFIXES)
        if expanded is not None:
            found += expanded
            continue
        meant = find_images(source)
        missing = [path for path in meant if not path.is_file()]
        if missing:
            raise DataError(f"{source}: names {missing[0]}, which is not a file")
        found += meant
    return list(dict.fromkeys(found))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The names of the files; their paths where two have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _streamed(inputs: Sequence[Path], output: str) -> Job:
    if len(inputs) != 1 or inputs[0].is_dir():
        raise LicquantError("- stands for one file: standard input and output take no lists and no folders")
    if Path(output).is_dir() or output.endswith(os.sep):
        raise LicquantError(f"{output}: a folder; what comes from standard input needs a name, or -")
    return Job(inputs[0], Path(output))


def _expanded(given: Path, suffixes: Sequence[str], expand: Expand) -> dict[Path, Path] | None:
    if given.suffix.lower() == LIST and given.is_file():
        paths = listed(given)
        top = _common([path.parent for path in paths]) if paths else Path()
        return {path: _below(path, top) for path in paths}
    return expand(given, suffixes)


def _relative_names(
    inputs: Sequence[Path], suffixes: Sequence[str], expanded: dict[Path, dict[Path, Path]]
) -> dict[Path, Path]:
    """Source → its path below the output, for every file that is meant, in order. expanded: for some of the inputs"""
    folders = [path for path in inputs if path.is_dir()]
    top = _common(folders) if folders else Path()
    files = [path for path in inputs if not path.is_dir() and not _is_pattern(path) and path not in expanded]
    several = len({path.name for path in files}) < len(set(files))  # of one name: then their folders tell them apart
    above = _common([path.parent for path in files]) if several else None
    names: dict[Path, Path] = {}
    for given in inputs:
        if given in expanded:
            found = expanded[given]
        elif given.is_dir():
            found = {path: _below(path, top) for path in files_below(given, suffixes)}
        elif _is_pattern(given):
            base = Path(*(_literal_parts(given)))
            found = {path: _below(path, base) for path in _matching(given, suffixes)}
        else:
            found = {given: _below(given, above) if above else Path(given.name)}
        if not found:
            what = "names no file" if given.suffix.lower() == LIST else f"holds none of {', '.join(suffixes)}"
            what = "matches no file" if _is_pattern(given) else what
            raise DataError(f"{given}: {what}")
        for path, name in found.items():
            names.setdefault(path, name)
    return names


def _is_pattern(path: Path) -> bool:
    """A file whose name has brackets is a file."""
    return glob.has_magic(str(path)) and not path.exists()


def _literal_parts(pattern: Path) -> Iterator[str]:
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _matching(pattern: Path, suffixes: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for path in sorted(map(Path, glob.glob(str(pattern), recursive=True))):
        found += files_below(path, suffixes) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _common(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def _below(path: Path, base: Path) -> Path:
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(base)))


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        other = sources.setdefault(job.target, job.source)
        if other != job.source:
            raise LicquantError(f"{other} and {job.source} would both be written to {job.target}")
