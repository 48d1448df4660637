"""HTML from Python: whatever is not markup already is escaped, so a file's name stays text wherever it stands."""

from __future__ import annotations

import html
import json
import math
from typing import Any

from licquant.terminal import printable

DASH = "–"
_WITHOUT_END = {"img", "input"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any value as text: markup in it escaped, control characters and turns of the writing's direction told."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value))))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. children: ``Html`` as it is, all else as text; attributes: ``class_`` and ``data_x`` as Python
    must write them, None and False are left out, True stands without a value."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{given}>" if name in _WITHOUT_END else f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """One behind the other."""
    return Html("".join(map(text, children)))


def figure(value: Any, form: str, unit: str = "") -> Html:
    """A number as people read it, with the number itself for programs; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return text(DASH)
    return tag("data", f"{value:{form}}{unit}", value=repr(value))


def embedded_json(name: str, value: object) -> Html:
    """Data for the page's script; nothing in it can end the element."""
    written = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return Html(f'<script type="application/json" id="{text(name)}">{written}</script>')
