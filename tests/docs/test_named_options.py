"""Options that errors, helps and docstrings name are those of some command."""

import ast
import re
from pathlib import Path

from typer.main import get_command

from licquant.commands.app import app

SOURCE = Path(__file__).parents[2] / "src" / "licquant"
OF_OTHERS = {"--porcelain", "--untracked-files", "--share", "--place"}  # git's, and properties of CSS


def test_options_that_texts_name_exist() -> None:
    """An error once asked for --train, which no command has."""
    group = get_command(app)
    commands = [group, *group.commands.values()]
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    known |= OF_OTHERS
    named = {
        (name, str(path.relative_to(SOURCE)))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value)
    }
    assert len(named) > 30
    assert [(name, path) for name, path in sorted(named) if name not in known] == []
