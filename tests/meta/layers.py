"""The import layers of licquant, and the checker that ``test_layering.py`` runs and tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

# A module or package may import only what stands on an earlier line; those on one line not each other.
ORDER = [
    ["errors"],
    ["config", "digests", "images", "terminal"],
    ["cache", "options"],
    ["program"],
    ["codec"],
    ["evaluate"],
    ["models"],
    ["train"],
    ["quant"],
    ["allocate"],
    ["lower"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

# These may import anything of licquant; nothing may import them.
TOP = {
    "pipeline",
    "commands",
    "coding_command",
    "file_lists",
    "model_choice",
    "model_search",
    "inspect_command",
    "toolkit_commands",
    "finetune_command",
    "reproduce_command",
    "reproduce_tables",
    "compare_command",
    "profile_command",
    "models_command",
    "cache_command",
    "demo",
    "cli",
    "__main__",
}
# The package itself offers the codec, and nothing that needs the training stack.
ROOT = {"errors", "config", "digests", "images", "cache", "program", "codec"}
# Narrower than the order says: a model description knows nothing of codecs and metrics.
NARROW = {"models": {"errors", "config", "digests"}}

# What runs where files are decoded: none of these libraries, not even inside a function.
LEAN = ROOT | {
    "__init__",
    "terminal",
    "commands",
    "coding_command",
    "file_lists",
    "model_choice",
    "model_search",
    "inspect_command",
    "cache_command",
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
        layer = parts[0]
        if layer not in RANK and layer not in TOP and layer != "__init__":
            found.append(f"{path.name}: {layer} has no place in the layers (tests/meta/layers.py)")
            continue
        for line, name in imported_names(path, package):
            if not allowed(layer, name):
                found.append(f"{'/'.join(parts)}.py:{line}: {layer} may not import {name}")
    return found


def allowed(layer: str, name: str) -> bool:
    """Whether a module of ``layer`` may import the dotted ``name``."""
    first, _, rest = name.partition(".")
    if first != "licquant":
        return not (layer in LEAN and first in HEAVY)
    target = rest.partition(".")[0]
    if layer in TOP or target == layer:
        return True
    if target == "__version__":
        return True
    if layer == "__init__":
        return target in ROOT
    if target not in RANK:  # the package itself, or the top
        return False
    return target in NARROW[layer] if layer in NARROW else RANK[target] < RANK[layer]


def imported_names(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands, relative ones made absolute.

    ``from licquant import x`` gives ``licquant.x``; ``import_module("x")`` and ``__import__("x")`` give
    ``x``.
    """
    home = ["licquant", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*home[: len(home) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module]
            source = ".".join(str(part) for part in base)
            if source == "licquant":
                yield from ((node.lineno, f"licquant.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, source
        elif isinstance(node, ast.Call) and _is_import_call(node.func) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return name in ("import_module", "__import__")
