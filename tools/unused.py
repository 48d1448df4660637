"""What of ``src`` nothing but tests uses: public functions, classes, methods and constants, and parameters that have a
default which no caller ever replaces.

    python tools/unused.py            prints what it finds, and exits with status 1 if there is anything

Names are compared, not objects: a name counts as used in its own file, in files that import it, and wherever an
attribute or a string is called so; a method only there. So something unused may be missed, but what is reported is
used by nobody, unless it is reached through a library that calls it by its name: those are in ``ALLOWED``, each with
its reason. The parameters of a class are those of its ``__init__``, or a dataclass's fields.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "licquant"

# Name, or the last part of it for what many classes have, with the parameter that is meant → the reason.
ALLOWED = {
    "Remarks.emit": "called by logging",
    "is_leaf_module": "called by torch.fx",
    "right_inverse": "called by PyTorch's parametrizations",
    "main(arguments)": "the console script reads sys.argv; tests give words",
    "Codec.memory": "tells what an image would take, for those who set max_memory",
    "Codec.entropy_bits": "tells in one number what a file comes close to",
    "QuantizedModel.save_pretrained": "the counterpart of from_pretrained",
    "OpenVinoEngine.execution_types": "tells which kernels run; the tests of INT8 speed read it",
    "Site(page)": "tests have one that stands in for the built page",
    "dead_leaves(seed)": "other images: also for those who measure a model of their own",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Use:
    """A name that stands somewhere: in which file and line, and the call whose function it is, if it is one.

    bare: it stands there as a variable does, and no object's attribute
    """

    path: Path
    line: int
    call: ast.Call | None
    bare: bool = False


def main() -> int:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files()}
    found = sorted(unused(trees, SOURCE, ALLOWED))
    for line in found:
        sys.stdout.write(line + "\n")
    return 1 if found else 0


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def unused(trees: dict[Path, ast.Module], source: Path, allowed: Mapping[str, str]) -> Iterator[str]:
    """One line for everything defined below ``source`` that the trees do not use, and for what is allowed in vain."""
    uses, excused = uses_of(trees), set[str]()
    imports = {path: imported_names(tree) for path, tree in trees.items()}
    bases = {
        ast.unparse(b) for t in trees.values() for c in ast.walk(t) if isinstance(c, ast.ClassDef) for b in c.bases
    }
    changed = {
        keyword.arg or ""
        for use in uses["replace"]
        if use.call is not None  # of a dataclass
        for keyword in use.call.keywords
    }
    for path, tree in trees.items():
        if not path.is_relative_to(source):
            continue
        place = str(path.relative_to(source.parent))
        for name, node in definitions(tree):
            own = name.rpartition(".")[2]
            label = f"{place}:{node.lineno}: {name}"
            elsewhere = [use for use in uses[own] if use.path != path or not _within(use.line, node)]
            if "." in name:
                elsewhere = [use for use in elsewhere if not use.bare]
            else:
                elsewhere = [use for use in elsewhere if not use.bare or use.path == path or own in imports[use.path]]
            complaints = {name: f"{label} is used by tests at most"} if not elsewhere else {}
            idle: Iterator[str] = iter(())
            if elsewhere and isinstance(node, Function):
                idle = idle_parameters(node, "." in name, elsewhere)
            elif elsewhere and isinstance(node, ast.ClassDef) and own not in bases:
                idle = idle_of_class(node, [*elsewhere, *constructions(node, path)], changed)
            for parameter in idle:
                complaints[f"{name}({parameter})"] = f"{label}: no caller gives its parameter {parameter}"
            for key, complaint in complaints.items():
                reason = {key, own} & allowed.keys()
                excused |= reason
                if not reason:
                    yield complaint
    yield from (f"{key}: is allowed, but used or gone" for key in allowed if key not in excused)


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Public functions, classes, constants and methods of a module, by name: what a decorator registers is not."""
    for node in tree.body:
        if isinstance(node, Definition) and _is_public(node):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from (
                (f"{node.name}.{inner.name}", inner)
                for inner in node.body
                if isinstance(inner, Function) and _is_public(inner)
            )
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
                yield target.id, node


def _is_public(node: Definition) -> bool:
    registered = any(isinstance(decorator, ast.Call) for decorator in node.decorator_list if not _is_plain(decorator))
    return not node.name.startswith("_") and not registered


def _is_plain(decorator: ast.expr) -> bool:
    """Whether a decorator only changes what it decorates, and makes it known to nobody."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("dataclass", "no_grad", "inference_mode", "cache", "lru_cache")


def uses_of(trees: dict[Path, ast.Module]) -> dict[str, list[Use]]:
    """Name → where it stands, other than where it is defined or imported."""
    uses: dict[str, list[Use]] = defaultdict(list)
    for path, tree in trees.items():
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                uses[node.id].append(Use(path, node.lineno, calls.get(id(node)), bare=True))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                uses[node.attr].append(Use(path, node.lineno, calls.get(id(node))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                uses[node.value].append(Use(path, node.lineno, None))  # __all__, getattr, a lazy table of names
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.asname not in (None, alias.name):
                        uses[alias.name].append(Use(path, node.lineno, None))  # used under another name
    return uses


def imported_names(tree: ast.Module) -> set[str]:
    """What the ``from`` imports of a module bring into it, wherever they stand."""
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def constructions(node: ast.ClassDef, path: Path) -> Iterator[Use]:
    """The calls by which a class makes its own objects."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("cls", node.name):
            yield Use(path, call.lineno, call)


def idle_of_class(node: ast.ClassDef, uses: list[Use], changed: Set[str]) -> Iterator[str]:
    """Parameters with a default of a class's constructor that no call replaces; changed: names of copied fields.

    None where a call passes on arguments that cannot be seen.
    """
    calls = [use.call for use in uses if use.call is not None]
    if not calls or any(_is_open(call) for call in calls):
        return
    made = [Use(use.path, use.line, use.call) for use in uses if use.call is not None]
    for inner in node.body:
        if isinstance(inner, Function) and inner.name == "__init__":
            yield from idle_parameters(inner, True, made)
            return
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        given = {keyword.arg for call in calls for keyword in call.keywords} | changed
        most = max(len(call.args) for call in calls)
        fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
        fields = [field for field in fields if "ClassVar" not in ast.unparse(field.annotation)]
        for position, field in enumerate(fields):
            name = getattr(field.target, "id", "_")
            if field.value is not None and position >= most and name not in given and not name.startswith("_"):
                yield name


def idle_parameters(node: Function, method: bool, uses: list[Use]) -> Iterator[str]:
    """Parameters with a default that no call replaces; none if the function is also handed on, not called."""
    calls = [use.call for use in uses]
    if any(call is None or _is_open(call) for call in calls):
        return
    given = {keyword.arg for call in calls if call for keyword in call.keywords}
    most = max(len(call.args) for call in calls if call)
    ordered = [*node.args.posonlyargs, *node.args.args]
    bound = method and not any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    first_default = len(ordered) - len(node.args.defaults)
    for position, argument in enumerate(ordered):
        if position >= first_default and position - bound >= most and argument.arg not in given:
            yield argument.arg
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is not None and argument.arg not in given:
            yield argument.arg


def _is_open(call: ast.Call) -> bool:
    """Whether a call passes on arguments that cannot be seen."""
    return any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)


def _within(line: int, node: ast.stmt) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


if __name__ == "__main__":
    sys.exit(main())
