"""What the tools that take pictures of pages share: Chromium by Playwright, and small files in docs/."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def window(browser: Any, url: str, width: int, height: int, scheme: str) -> Any:
    """A page in a window of that size, ``light`` or ``dark``."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    return page


def save(data: bytes, name: str, colours: int = 128) -> None:
    """A screenshot as a picture of the documentation; colours: of its palette, so that the file stays small."""
    with Image.open(BytesIO(data)) as image:
        image = image.convert("RGB")
        image.quantize(palette=image.quantize(colours)).save(DOCS / name, optimize=True)
