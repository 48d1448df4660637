"""What the repository holds: nothing huge, no paths of one machine, no endless files and functions."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "licquant"

LARGEST_FILE = 16 * 2**20
LONGEST_FILE = 450
LONGEST_FUNCTION = 80

TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".cfg", ".ini", ".yml", ".yaml", ".sh", ".bib", ""}
# Homes, temporary folders and mounts: right on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:home|Users|root|work|mnt|data|scratch|tmp|var/folders)/\w")


def repository_files() -> list[Path]:
    """Files that are or would be committed, as git says; without git, the source folders."""
    try:
        command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
        files = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        files = [path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*")]
        files = [path for path in files if "__pycache__" not in path.parts]
    return [path for path in files if path.is_file()]


def machine_paths(text: str) -> list[str]:
    """The lines of a text that name an absolute path of some machine."""
    return [line.strip() for line in text.splitlines() if MACHINE_PATH.search(line)]


def long_functions(source: str, limit: int = LONGEST_FUNCTION) -> list[str]:
    """Names of the functions that span more than ``limit`` lines, decorators not counted."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > limit
    ]


def test_no_file_is_huge() -> None:
    files = repository_files()
    assert files
    assert [path.name for path in files if path.stat().st_size > LARGEST_FILE] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {}
    for path in repository_files():
        if path.suffix in TEXT_SUFFIXES:
            lines = machine_paths(path.read_text(encoding="utf-8", errors="replace"))
            if lines:
                found[str(path.relative_to(ROOT))] = lines
    assert found == {}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    assert long_functions(source) == []


def test_the_checkers_see_what_they_look_for() -> None:
    folder = "/" + "home/someone"
    assert machine_paths(f'path = "{folder}/x"\nfine = "src/home/x"') == [f'path = "{folder}/x"']
    assert machine_paths("https://example.org/data/x and ../work/x and ~/home/x") == []
    assert long_functions("def f():\n" + "    x = 1\n" * 3, limit=3) == ["f"]
    assert long_functions("def f():\n" + "    x = 1\n" * 2, limit=3) == []
