"""The manual page, docs/licquant.1, from what the commands say of themselves: ``python tools/make_man.py``.

It goes into the wheel, so that ``man licquant`` shows it where the package is installed; a test compares it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from licquant.commands.app import app

PAGE = Path(__file__).parents[1] / "docs" / "licquant.1"
FILES = """.SH FILES
.TP
.I LICQUANT_MODELS
Folders, separated by colons, in which decode looks for the model of a coded image.
.TP
.I LICQUANT_CACHE
Folder for what is kept between commands; otherwise licquant in XDG_CACHE_HOME or ~/.cache.
.SH EXIT STATUS
0: done. 1: one line on standard error says what was wrong; with several files, the others are written.
2: options that cannot be understood. 130: interrupted, to be continued with \\-\\-resume.
"""


def commands() -> dict[str, Any]:
    """Name → command, in order of the names; those of a group by both names."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {own}": of for own, of in inner.items()}
    return dict(sorted(found.items()))


def page() -> str:
    """The page in man's own language."""
    group: Any = typer.main.get_command(app)
    lines = [
        '.TH LICQUANT 1 "" "licquant" "User Commands"',
        ".SH NAME",
        f"licquant \\- {_plain(_first(group.help)).rstrip('.').lower()}",
        ".SH SYNOPSIS",
        ".B licquant",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR] ...",
        ".SH OPTIONS",
        *_options(group),
        ".SH COMMANDS",
    ]
    for name, command in commands().items():
        words = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
        lines += [f".SS {' '.join([f'licquant {name}', *words, '[OPTIONS]'])}", _plain(_first(command.help))]
        lines += [*_options(command)]
    return "\n".join(lines) + "\n" + FILES


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        text = " ".join((getattr(parameter, "help", None) or "").split())
        if parameter.param_type_name == "argument":
            if text:
                yield from (".TP", f"\\fI{_argument(parameter)}\\fR", _plain(text))
            continue
        names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in sorted(parameter.opts, key=len))
        value = "" if parameter.is_flag else f" \\fI{_plain(parameter.metavar or parameter.name.upper())}\\fR"
        ending = " Required." if parameter.required else ""
        yield from (".TP", names + value, _plain(text or parameter.name) + ending)


def _argument(parameter: Any) -> str:
    return parameter.name.upper() + (" ..." if parameter.nargs != 1 else "")


def _first(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """The text without what man would take for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    ascii_ = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in escaped)
    return f"\\&{ascii_}" if ascii_.startswith((".", "'")) else ascii_


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
