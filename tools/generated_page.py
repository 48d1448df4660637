"""What the scripts that generate a page have in common: they write it, or say with ``--check`` whether it differs."""

import argparse
from collections.abc import Iterable
from pathlib import Path


def write_or_check(page: Path, lines: Iterable[str], description: str) -> int:
    """The exit status: 1 if the page was to be checked and differs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing, end with 1 if the page differs")
    text = "\n".join(lines) + "\n"
    if parser.parse_args().check:
        return int(not page.exists() or page.read_text(encoding="utf-8") != text)
    page.write_text(text, encoding="utf-8")
    return 0
