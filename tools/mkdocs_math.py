"""Hooks of mkdocs (``mkdocs.yml``) that make a site which needs no network.

Formulas, LaTeX between ``$$`` on lines of their own, become MathML, which browsers show without a script. The one
script that the plugin ``offline`` would load from elsewhere is left out. It serves searching in pages opened as files,
which so needs ``python -m http.server -d site``.
"""

import re
from typing import Any

from latex2mathml.converter import convert

_FOREIGN = re.compile(r'<script src="https://[^"]*"></script>')
_BLOCK = re.compile(r"^\$\$(.+?)\$\$[ ]*$", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return _BLOCK.sub(lambda found: convert(" ".join(found[1].split()), display="block"), markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Called by mkdocs for every page as it will be written."""
    return _FOREIGN.sub("", output)
