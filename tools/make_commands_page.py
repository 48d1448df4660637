"""docs/commands.md from the command line's own parser.

python tools/make_commands_page.py            write it
python tools/make_commands_page.py --check    end with 1 if it differs
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from generated_page import write_or_check

from licquant.commands.app import app

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def lines() -> Iterator[str]:
    """The page."""
    yield "# Commands"
    yield ""
    yield "Generated from the parser by `tools/make_commands_page.py`. Bad input gives one clear line and an exit"
    yield "status that is not 0. `--json` prints the result as one JSON object on standard output; progress goes to"
    yield "standard error."
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in sorted(commands):
        command = commands[name]
        yield ""
        yield f"## licquant {name}"
        yield ""
        yield _text(command.help)
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help" and not _hidden(parameter)]
        if rows:
            yield ""
            yield "| | | |"
            yield "|---|---|---|"
            yield from rows


def _hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _row(parameter: Any) -> str:
    named = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
    default = parameter.default
    shown = f"`{default}`" if _tells(default) else ""
    if parameter.required:
        shown = "required"
    return f"| {', '.join(f'`{name}`' for name in named)} | {_text(getattr(parameter, 'help', None))} | {shown} |"


def _tells(default: Any) -> bool:
    return isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, lines(), (__doc__ or "").partition("\n")[0]))
