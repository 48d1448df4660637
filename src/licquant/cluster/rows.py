"""What became of every item, as Parquet: a folder of parts, one a shard, that any reader of Parquet takes as one table.

    input, output                 the files, as the command line named them
    error                         why there is no result; null for one that is there
    input_sha256, output_sha256   of their contents (hex);  output: null where none is written
    made_by                       SHA-256 (hex) of model, settings and code
    node                          the machine, as Ray names it
    record                        what the command's --json says of the item beside the other columns, as JSON

and the columns that the work declares. Names that are not UTF-8 are told by escapes.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from licquant.errors import LicquantError
from licquant.images import utf8, write_atomically

_TEXTS = ("input", "output", "error", "input_sha256", "output_sha256", "made_by", "node", "record")
_LOG = logging.getLogger(__name__)

Row = dict[str, Any]


def told(name: str) -> str:
    """A file's name as a row has it."""
    return utf8(name).decode()


def row_of(known: Row, facts: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
    """known: what every row has;  facts: as the work tells them, those without a column as JSON"""
    others = {key: value for key, value in facts.items() if key not in columns and key not in _TEXTS}
    named = {key: facts[key] for key in columns if key in facts}
    return {**known, **named, "error": facts.get("error"), "record": json.dumps(others, default=str)}


def write_part(path: Path, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Whole or not at all; ``LicquantError`` if it cannot be written."""
    import pyarrow as arrow
    from pyarrow import parquet

    fields = [*((name, arrow.string()) for name in _TEXTS)]
    fields += [(name, arrow.type_for_alias(kind)) for name, kind in columns.items()]
    table = arrow.Table.from_pylist([_valid(row) for row in rows], schema=arrow.schema(fields))
    file = io.BytesIO()
    parquet.write_table(table, file)
    write_atomically(path, file.getvalue())


def read_part(path: Path, only: Iterable[str] | None = None) -> list[Row]:
    """Its rows; none from a part that is missing or damaged, which is said: what it told is made again.

    only: these columns
    """
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path, columns=None if only is None else list(only), memory_map=False).to_pylist()
    except FileNotFoundError:
        return []
    except (OSError, arrow.ArrowException) as error:
        _LOG.warning("%s: not the rows of a run (%s); made again", path, str(error).partition("\n")[0])
        return []


def parts_in(folder: Path) -> list[Path]:
    """The parts that a folder holds, in order."""
    return sorted(folder.glob("part-[0-9]*-*.parquet"))


def make_folder(folder: Path) -> None:
    """``LicquantError`` if there is none and it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LicquantError(f"{folder}: cannot be made: {error.strerror or error}") from error


def _valid(row: Row) -> Row:
    return {key: told(value) if isinstance(value, str) else value for key, value in row.items()}
