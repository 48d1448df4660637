"""Fill the tables of README.md and docs/ from results/*.json, between ``<!-- result: NAME -->`` and ``<!-- end -->``.

    python tools/make_results.py            write them
    python tools/make_results.py --check    say which pages differ, and end with 1

A result is a JSON object: title, command, commit, date, machine, checkpoints (λ → SHA-256), depends_on (source paths),
note, columns (name, and the format of numbers) and rows; null is a cell without a figure.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
KEYS = {"title", "command", "commit", "date", "machine", "checkpoints", "depends_on", "note", "columns", "rows"}
_MARK = re.compile(r"<!-- result: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read(name: str) -> dict[str, Any]:
    """The result; ``ValueError`` if a key is missing or a row does not fit the columns."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if set(record) != KEYS:
        raise ValueError(f"{name}: its keys are not {', '.join(sorted(KEYS))}")
    if any(len(row) != len(record["columns"]) for row in record["rows"]):
        raise ValueError(f"{name}: a row does not fit the columns")
    return record


def table(record: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [[column["name"] for column in record["columns"]], ["---"] * len(record["columns"])]
    lines += [[_cell(v, c) for v, c in zip(row, record["columns"], strict=True)] for row in record["rows"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, column: dict[str, str]) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else column["format"].format(value).replace("-", "−")


def filled(text: str) -> str:
    """A page with its tables as the results say."""
    return _MARK.sub(lambda m: f"<!-- result: {m['name']} -->\n{table(read(m['name']))}\n<!-- end -->", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, end with 1 if a page differs")
    check = parser.parse_args().check
    different = [
        page for page in pages() if filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")
    ]
    for page in different:
        print(f"{page.relative_to(ROOT)}: {'differs from results/' if check else 'written'}")
        if not check:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main())
