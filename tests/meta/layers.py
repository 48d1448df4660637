"""The import layers of licquant, and the checker that ``test_layering.py`` runs and tests."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

# A module or package may import only what stands on an earlier line; those on one line not each other.
ORDER = [
    ["errors"],
    ["config", "digests", "images", "terminal"],
    ["cache"],
    ["ready"],
    ["cluster"],
    ["program"],
    ["codec"],
    ["onnx_export", "openvino_export"],
    ["browser"],
    ["evaluate"],
    ["reports"],
    ["models"],
    ["train"],
    ["quant"],
    ["lower"],
    ["allocate"],
    ["dynamic"],
    ["pipeline"],
    ["commands"],
    ["pillow", "torch", "__main__"],
]
# The same inside a package; a room is a folder or a module, "" all the others.
ROOMS = {
    "codec": [["entropy"], ["files"], ["regions"], ["tiling"], ["latents"], [""]],
    "quant": [[""], ["after_training"], ["in_training"]],
}
# The package itself offers the codec, and nothing that needs the training stack.
ROOT = {"errors", "config", "digests", "images", "cache", "ready", "program", "codec"}
# Narrower than the order says: a model description knows nothing of metrics, and of codecs how they pack weights.
NARROW = {"models": {"errors", "config", "digests", "codec"}}

# What runs where files are decoded: none of these libraries, not even inside a function.
LEAN = ROOT | {"__init__", "terminal", "onnx_export", "openvino_export", "browser", "pillow"}
LEAN_COMMANDS = {
    *("base", "cache", "coding", "coding_work", "doctor", "export", "file_lists", "image_options", "inspect"),
    *("model_choice", "model_search"),
    *("on_cluster", "options", "recipes", "serve"),
}
HEAVY = {
    "torch",
    "torchvision",
    "compressai",
    "lightning",
    "scipy",
    "matplotlib",
    "bjontegaard",
    "pytorch_msssim",
}


def violations(package: Path) -> list[str]:
    """One line for each import under ``package`` (the folder ``licquant``) that the layers forbid."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] != "__init__" and _rank(ORDER, parts[0]) is None:
            found.append(f"{path.name}: {parts[0]} has no place in the layers (tests/meta/layers.py)")
            continue
        for line, name in imported_names(path, package):
            if not allowed(parts, name):
                found.append(f"{'/'.join(parts)}.py:{line}: {parts[0]} may not import {name}")
    return found


def allowed(parts: Sequence[str], name: str) -> bool:
    """Whether the module at ``parts``, its path without the suffix, may import the dotted ``name``."""
    layer = parts[0]
    first, *target = name.split(".")
    if first != "licquant":
        lean = layer in LEAN or (layer == "commands" and parts[-1] in LEAN_COMMANDS)
        return not (lean and first in HEAVY)
    if target == ["__version__"]:
        return True
    if not target:  # the package itself: for the commands alone
        return layer in ("commands", "__main__")
    if layer == "__init__":
        return target[0] in ROOT
    if target[0] == layer:
        return layer not in ROOMS or _in_order(ROOMS[layer], parts[1:], target[1:])
    if layer in NARROW:
        return target[0] in NARROW[layer]
    mine, other = _rank(ORDER, layer), _rank(ORDER, target[0])
    return mine is not None and other is not None and other < mine


def _in_order(rooms: Sequence[Sequence[str]], importer: Sequence[str], target: Sequence[str]) -> bool:
    """Whether one module of a package may import another by the order of the package's rooms."""
    names = {name for line in rooms for name in line}
    mine, other = (part[0] if part and part[0] in names else "" for part in (importer, target))
    here, there = _rank(rooms, mine), _rank(rooms, other)
    assert here is not None
    assert there is not None
    return mine == other or there < here


def _rank(order: Sequence[Sequence[str]], name: str) -> int | None:
    return next((rank for rank, names in enumerate(order) if name in names), None)


def imported_names(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands, relative ones made absolute.

    ``from licquant import x`` gives ``licquant.x``; ``import_module("x")`` and ``__import__("x")`` give
    ``x``. A name of a room that is imported from its package is told with it.
    """
    home = ["licquant", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*home[: len(home) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module]
            source = ".".join(str(part) for part in base)
            if source == "licquant" or source.removeprefix("licquant.") in ROOMS:
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, source
        elif isinstance(node, ast.Call) and _is_import_call(node.func) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return name in ("import_module", "__import__")
