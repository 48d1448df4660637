"""The library prints nothing: it raises, returns and logs (``licquant``, a logger). Commands print, by ``terminal``."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "licquant"
PRINTING = ("commands", "terminal.py")


def printing(source: str) -> list[int]:
    """Lines that call ``print`` or ``warnings.warn``, or write to a standard stream."""
    calls = {"print", "pprint"}
    places = {"sys.stdout", "sys.stderr", "warnings.warn"}
    nodes = list(ast.walk(ast.parse(source)))
    called = [node.lineno for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in calls]
    return sorted(called + [n.lineno for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n) in places])


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_library_prints_nothing(path: Path) -> None:
    if path.relative_to(SOURCE).parts[0] not in PRINTING:
        assert printing(path.read_text(encoding="utf-8")) == []


def test_what_prints_is_seen() -> None:
    assert printing("print(1)\nimport sys\nsys.stderr.write('x')\nprint_table()\nwarnings.warn('x')") == [1, 3, 5]
