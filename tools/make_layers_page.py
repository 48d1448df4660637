"""docs/layers.md: the layers of the code as a diagram, from the table that the layering test holds imports to.

python tools/make_layers_page.py            write it
python tools/make_layers_page.py --check    end with 1 if it differs
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from generated_page import write_or_check  # noqa: E402

from tests.meta import layers  # noqa: E402

PAGE = ROOT / "docs" / "layers.md"
PACKAGE = ROOT / "src" / "licquant"


def lines() -> Iterator[str]:
    """The page."""
    yield "# Layers of the code"
    yield ""
    yield "Generated from `tests/meta/layers.py` by `tools/make_layers_page.py`. A module or package imports only from"
    yield "lines above its own. Those marked ● make up the codec half, which is installed alone to code files and never"
    yield "imports PyTorch."
    yield ""
    yield "| | | what it holds |"
    yield "|---|---|---|"
    for line in layers.ORDER:
        for name in line:
            yield f"| {'●' if name in layers.ROOT else ''} | `{name}` | {_summary(name)} |"
            for room in (room for rooms in layers.ROOMS.get(name, []) for room in rooms if room):
                yield f"| | &nbsp;&nbsp;&nbsp;`{name}/{room}` | {_summary(f'{name}/{room}')} |"


def _summary(name: str) -> str:
    """The first line of a module's or package's docstring."""
    path = PACKAGE / f"{name}.py"
    path = path if path.exists() else PACKAGE / name / "__init__.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, lines(), (__doc__ or "").partition("\n")[0]))
