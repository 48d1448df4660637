"""Calls are readable: more than seven arguments are a record's, and more than seven places nobody counts."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "licquant"
MOST = 7


def crowded_calls(source: str) -> list[str]:
    """``line: function`` of every call with more than ``MOST`` arguments, unless it makes an object and names those
    beyond. What ``partial`` and the like are given for their function counts as that function's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func.body if isinstance(node.func, ast.IfExp) else node.func)
            places = len(node.args) - (function == "partial")
            record = function.rpartition(".")[2][:1].isupper() or function == "cls"
            if places > MOST or (places + len(node.keywords) > MOST and not record):
                found.append(f"{node.lineno}: {function}")
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_call_has_more_than_seven_arguments(path: Path) -> None:
    assert crowded_calls(path.read_text(encoding="utf-8")) == []


def test_the_checker_sees_what_it_looks_for() -> None:
    assert crowded_calls("f(1, 2, 3, 4, 5, 6, 7)") == []
    assert crowded_calls("f(1, 2, 3, 4, 5, 6, 7, 8)") == ["1: f"]
    assert crowded_calls("f(1, 2, 3, 4, 5, 6, 7, a=8)") == ["1: f"]
    assert crowded_calls("partial(f, 1, 2, 3, 4, 5, 6, 7)") == []
    assert crowded_calls("m.Record(1, 2, 3, 4, 5, 6, 7, 8)") == ["1: m.Record"]
    assert crowded_calls("m.Record(1, 2, 3, a=4, b=5, c=6, d=7, e=8); cls(1, b=2, c=3, d=4, e=5, f=6, g=7, h=8)") == []
