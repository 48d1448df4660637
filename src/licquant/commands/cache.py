"""``licquant cache``: what is kept between commands, how much and how old, and an end to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from licquant import cache
from licquant.commands.base import Report
from licquant.terminal import say, show_table


def run(folder: Path | None, clear: bool, older: bool) -> Report:
    """Show what the folder holds; ``clear`` deletes it afterwards, ``older`` only what today's code does not use."""
    folder = cache.cache_folder(folder)
    files = cache.kept_in(folder)
    kinds = [_summary(kind, files) for kind in (*cache.KINDS, "unfinished") if any(kind == f.kind for f in files)]
    chosen = [file for file in files if clear or (older and not file.current)]
    freed = cache.clear(chosen)
    record = {"folder": str(folder), "kinds": kinds, "cleared": len(chosen), "cleared_bytes": freed}

    def show() -> None:
        if kinds:
            show_table(_table(kinds))
        else:
            say(f"{folder}: nothing is kept")
        if clear or older:
            say(f"{folder}: {len(chosen)} files deleted, {freed:,} bytes")
        elif kinds:
            say(f"{folder}: --clear deletes all, --clear-older what other versions made")

    return Report(record, show)


def _summary(kind: str, files: list[cache.Kept]) -> dict[str, Any]:
    own = [file for file in files if file.kind == kind]
    old = [file for file in own if not file.current]
    return {
        "kind": kind,
        "files": len(own),
        "bytes": sum(file.bytes for file in own),
        "newest_days": min(file.seconds for file in own) / 86_400,
        "oldest_days": max(file.seconds for file in own) / 86_400,
        "older_files": len(old),
        "older_bytes": sum(file.bytes for file in old),
    }


def _table(kinds: list[dict[str, Any]]) -> Table:
    table = Table()
    table.add_column("what")
    for heading in ("files", "bytes", "days old", "of other versions", "bytes"):
        table.add_column(heading, justify="right")
    for kind in kinds:
        table.add_row(
            kind["kind"],
            f"{kind['files']}",
            f"{kind['bytes']:,}",
            f"{kind['newest_days']:.1f} to {kind['oldest_days']:.1f}",
            f"{kind['older_files']}",
            f"{kind['older_bytes']:,}",
        )
    return table
