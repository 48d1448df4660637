"""Recipes: TOML files with options of ``quantize``, ``finetune`` and ``train``; those of licquant itself are presets.

    steps = 500                 # for the command that the recipe is given to
    [finetune]                  # for this command alone
    learning-rate = 0.01

Keys are named like the options, those that the help leaves out included. What is given on the command line wins over a
recipe, and a recipe over a preset. A path is relative to the recipe's folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from licquant.commands.options import Range
from licquant.errors import LicquantError
from licquant.terminal import say

TABLES = ("quantize", "finetune", "train")
_FOLDER = Path(str(resources.files("licquant"))) / "assets" / "recipes"
_NOT_IN_RECIPES = ("recipe", "preset", "json", "help")
_LARGEST = 2**20  # bytes; whatever is longer is another file


def presets() -> list[str]:
    """Names of the recipes that come with licquant, the quickest first."""
    return [path.stem.partition("-")[2] for path in sorted(_FOLDER.glob("*.toml"))]


def preset_file(name: str) -> Path:
    """``LicquantError`` for a name that is no preset's."""
    found = next((path for path in _FOLDER.glob("*.toml") if path.stem.partition("-")[2] == name), None)
    if found is None:
        raise LicquantError(f"unknown preset {name[:40]!r}: choose one of {', '.join(presets())}")
    return found


def read_recipe(path: Path, command: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """What a recipe says to a command: parameter → value, converted and checked as on the command line.

    ``LicquantError``, one line that names the file and the key, for whatever cannot be used.
    """
    found = {}
    for name, value in _settings(path, command):
        if name not in keys:
            raise LicquantError(f"{path}: {name[:40]!r} is no option of licquant {command}")
        try:
            found[keys[name].parameter] = _checked(keys[name], value, path.parent)
        except LicquantError as error:
            reason = str(error)[str(error).rfind("must be") :]
            raise LicquantError(f"{path}: {name} = {repr(value)[:40]}: {reason}") from error
    return found


def _settings(path: Path, command: str) -> Iterator[tuple[str, Any]]:
    """(key, value) of those outside of tables, then of the command's table."""
    try:
        if path.stat().st_size > _LARGEST:
            raise LicquantError(f"{path}: larger than {_LARGEST:,} bytes: not a recipe")
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LicquantError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise LicquantError(f"{path}: not a TOML file: {' '.join(str(error).split())}") from error
    for name, value in record.items():
        if isinstance(value, dict) and name not in TABLES:
            raise LicquantError(f"{path}: unknown table {name[:40]!r}: a recipe has {', '.join(TABLES)}")
        if not isinstance(value, dict) and name in TABLES:
            raise LicquantError(f"{path}: {name}: must be a table, [{name}]")
    yield from ((key, value) for key, value in record.items() if not isinstance(value, dict))
    yield from record.get(command, {}).items()


def _checked(key: Key, value: Any, folder: Path) -> Any:
    """A value as the option's own parser leaves it; a path made relative to the folder."""
    of = key.range
    if of is not None:
        wanted = "a whole number" if of.whole else "a number"
        if isinstance(value, int if of.whole else int | float) and not isinstance(value, bool):
            return of(value)
    elif key.kind is bool:
        wanted = "true or false"
        if isinstance(value, bool):
            return value
    else:
        wanted = "a text in quotes"
        if isinstance(value, str):
            return folder / value if key.kind is Path else value
    raise LicquantError(f"must be {wanted}")


@dataclass(frozen=True)
class Key:
    """What a recipe may say: parameter of the command, its type without None, the range of a number, its help."""

    parameter: str
    kind: type
    range: Range | None
    help: str


def keys_of(command: Callable[..., Any]) -> dict[str, Key]:
    """Name of an option, without its dashes → what it takes, for all options of a command that a recipe may have."""
    found = {}
    for parameter, hint in get_type_hints(command, include_extras=True).items():
        if parameter == "return":
            continue
        plain, told = get_args(hint)
        kind = next((one for one in get_args(plain) if one is not type(None)), plain)
        declared = [name for name in (told.default, *(told.param_decls or ())) if str(name).startswith("--")]
        name = declared[0].removeprefix("--") if declared else parameter.replace("_", "-")
        if name not in _NOT_IN_RECIPES:
            found[name] = Key(parameter, kind, told.parser if isinstance(told.parser, Range) else None, told.help)
    return found


def _take(context: typer.Context, path: Path, *, over: bool) -> None:
    """Makes what a recipe says the defaults of the command; over: what another one said, which else stays."""
    name = context.command.name
    command = name if name in TABLES else "train"  # which is a program of its own, too
    assert context.command.callback is not None
    said = read_recipe(path, command, keys_of(context.command.callback))
    before = dict(context.default_map or {})
    context.default_map = {**before, **said} if over else {**said, **before}


def _take_recipe(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        _take(context, path, over=True)
    return path


def _take_preset(context: typer.Context, name: str | None) -> str | None:
    if name is not None and not context.resilient_parsing:
        _take(context, preset_file(name), over=False)
    return name


# Both before all other options, whose defaults they set.
Recipe = Annotated[
    Path | None,
    typer.Option("--recipe", help="TOML file with options: see licquant recipe.", is_eager=True, callback=_take_recipe),
]
QuantizePreset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        is_eager=True,
        callback=_take_preset,
        help="fast (not reconstructed: RD loss +0.85 % at λ=0.013), balanced (the default; 2 to 4 min) or best (700 "
        "steps).",
    ),
]
FinetunePreset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        is_eager=True,
        callback=_take_preset,
        help="fast (60 steps), balanced (600: RD loss -0.26 % at λ=0.013, 15 min) or best (3000, the default).",
    ),
]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Recipes: TOML files with options for --recipe, and those that come with licquant, for --preset.",
)


@commands.command("list")
def list_() -> None:
    """List the presets, each with what it is for."""
    for name in presets():
        first = preset_file(name).read_text(encoding="utf-8").partition("\n")[0]
        say(f"{name}: {first.removeprefix('# ')}")


@commands.command()
def show(name: Annotated[str, typer.Argument(help="fast, balanced or best.")]) -> None:
    """Print a preset as TOML, to begin a recipe of your own with."""
    say(preset_file(name).read_text(encoding="utf-8").rstrip())


@commands.command()
def keys(context: typer.Context, command: Annotated[str, typer.Argument(help="quantize, finetune or train.")]) -> None:
    """List all that a recipe may say to a command, those options included that its help leaves out."""
    if command not in TABLES:
        raise LicquantError(f"{command[:40]!r} takes no recipe: choose one of {', '.join(TABLES)}")
    group: Any = context.find_root().command
    for name, key in keys_of(group.commands[command].callback).items():
        say(f"{name}: {key.help}")
