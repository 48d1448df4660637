"""What nothing but tests uses is found, and nothing else."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unused_tool", ROOT / "tools" / "unused.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unused_tool"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_source_has_nothing_unused(tool: ModuleType) -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in tool.files()}
    assert list(tool.unused(trees, tool.SOURCE, tool.ALLOWED)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(): pass", ["f is used by tests at most"]),
        ("def f(): f()", ["f is used by tests at most"]),
        ("class C: pass", ["C is used by tests at most"]),
        ("LIMIT = 3", ["LIMIT is used by tests at most"]),
        ("class C:\n    def m(self): pass\nC()", ["C.m is used by tests at most"]),
        ("def f(a, b=1): pass\nf(1)", ["f: no caller gives its parameter b"]),
        ("def f(a, *, b=1): pass\nf(1, c=2)", ["f: no caller gives its parameter b"]),
        ("class C:\n    def m(self, b=1): pass\nC().m()", ["C.m: no caller gives its parameter b"]),
        ("class C:\n    def m(self): pass\nC()\nm = 1\nm", ["C.m is used by tests at most"]),
        ("class C:\n    def __init__(self, b=1): pass\nC()", ["C: no caller gives its parameter b"]),
        ("@dataclass\nclass C:\n    a: int\n    b: int = 1\nC(1)", ["C: no caller gives its parameter b"]),
        ("def f(a, b=1): pass\nf(1, 2)", []),
        ("class C:\n    def __init__(self, b=1): pass\nC(2)", []),
        ("class C:\n    def __init__(self, b=1): pass\nclass D(C): pass\nC(), D(2)", []),
        ("@dataclass\nclass C:\n    a: int\n    b: int = 1\nC(1, b=2)", []),
        ("@dataclass\nclass C:\n    a: int\n    b: int = 1\nreplace(C(1), b=2)", []),
        ("@dataclass\nclass C:\n    a: int\n    b: int = 1\nC(**x)", []),
        ("def f(a, b=1): pass\nf(1, b=2)", []),
        ("def f(a, b=1): pass\nf(*x)", []),
        ("def f(a, b=1): pass\nmap(f, x)", []),
        ("class C:\n    def m(self, b=1): pass\nC().m(2)", []),
        ("@app.command()\ndef f(): pass", []),
        ("def _f(): pass\n_LIMIT = 3", []),
        ("__all__ = ['f']\ndef f(): pass", []),
    ],
)
def test_it_sees_what_it_looks_for(tool: ModuleType, tmp_path: Path, source: str, found: list[str]) -> None:
    path = tmp_path / "package" / "a.py"
    told = list(tool.unused({path: ast.parse(source)}, tmp_path / "package", {}))
    assert [line.split(": ", 1)[1] for line in told] == found


def test_uses_in_other_modules_count_and_vain_allowances_are_told(tool: ModuleType, tmp_path: Path) -> None:
    trees = {tmp_path / "a.py": ast.parse("def f(): pass"), tmp_path / "b.py": ast.parse("import a\na.f()")}
    assert list(tool.unused(trees, tmp_path, {})) == []
    trees[tmp_path / "b.py"] = ast.parse("from a import f\nf()")
    assert list(tool.unused(trees, tmp_path, {})) == []
    trees[tmp_path / "c.py"] = ast.parse("def g(f): f()\ng(1)")  # a variable of that name is another thing
    trees[tmp_path / "b.py"] = ast.parse("")
    assert [line.split(": ", 1)[1] for line in tool.unused(trees, tmp_path, {})] == ["f is used by tests at most"]
    trees[tmp_path / "b.py"] = ast.parse("from a import f\nf()")
    assert list(tool.unused(trees, tmp_path, {"f": "why"})) == ["f: is allowed, but used or gone"]
