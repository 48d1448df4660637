"""The folder of a report: whether it may be written, and writing it aside, renamed when it is whole."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from licquant.config import parse_json
from licquant.errors import LicquantError
from licquant.images import RGB, check_places, utf8, write_atomically, write_image
from licquant.reports.html.content import page
from licquant.reports.html.record import SCHEMA

PAGE, RECORD = "index.html", "report.json"
_OWN = re.compile(r"index\.html|report\.json|images|images/\d+-\d+\.png")


def check_report_place(folder: Path, *others: Path) -> None:
    """``LicquantError`` if no report can be written there: asked before long work, not after it.

    A folder that is there already must be empty, or a report and nothing else. others: what else will be written,
    which must not lie in it.
    """
    place = _resolved(folder)
    for other in others:
        if place in (_resolved(other), *_resolved(other).parents):
            raise LicquantError(f"{folder}: a report needs a folder of its own, {other} would be in it")
    _refuse_others(folder, place)
    check_places(place.parent / f".licquant-{secrets.token_hex(8)}.tmp")


def write_report(folder: Path, record: Mapping[str, Any], pictures: Mapping[str, RGB]) -> None:
    """Write the report whole or not at all, in place of an earlier one.

    record: of ``record.report_record``;  pictures: file in the report → pixels

    Raises ``LicquantError`` if the place cannot be written, or is a folder that is no report.
    """
    place = _resolved(folder)
    _refuse_others(folder, place)
    aside, old = (place.with_name(f".licquant-{secrets.token_hex(8)}.tmp") for _ in range(2))
    try:
        (aside / "images").mkdir(parents=True)
        for name, pixels in pictures.items():
            write_image(aside / name, pixels)
        write_atomically(aside / RECORD, utf8(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)))
        write_atomically(aside / PAGE, utf8(page(record)))
        _put_in_place(aside, place, old)
    except (OSError, ValueError) as error:
        raise LicquantError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after the rename it is gone already
            shutil.rmtree(aside)


def _resolved(path: Path) -> Path:
    """Without links: one to a folder stays one."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise LicquantError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _put_in_place(aside: Path, place: Path, old: Path) -> None:
    """Rename; what stood there before is deleted once that is done, and put back if it cannot be."""
    before = place.exists()
    if before:
        place.rename(old)
    try:
        aside.rename(place)
    except OSError:
        if before:
            old.rename(place)
        raise
    if before:
        shutil.rmtree(old)


def _refuse_others(folder: Path, place: Path) -> None:
    """``LicquantError`` for what stands there and is neither an empty folder nor a report."""
    try:
        if not place.exists():
            return
        if not place.is_dir():
            raise LicquantError(f"{folder}: cannot be a report: not a folder")
        names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))
    except (OSError, ValueError) as error:
        raise LicquantError(f"{folder}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    foreign = [name for name in names if not _OWN.fullmatch(name)]
    if foreign:
        raise LicquantError(f"{folder}: is not a report, so it stays as it is: it holds {foreign[0]}")
    if names and not _is_report(place / RECORD):
        raise LicquantError(f"{folder}: is not a report, so it stays as it is: its {RECORD} is not one of licquant's")


def _is_report(record: Path) -> bool:
    try:
        found = parse_json(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA
