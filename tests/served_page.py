"""What the tests of the page of ``licquant serve`` share: the page with models beside it, and a window that has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'licquant[onnx]'")

from licquant import browser as pages
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id
from tests.conformance.run import FOLDER as CORPUS
from tests.conformance.run import MANIFEST

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src" / "licquant" / "assets"
EMBEDDED = sorted(ASSETS.glob("*.licq"))
SEED = ROOT / "fuzz" / "seeds" / "artifact" / "scale-hyperprior"
MANIFESTED = json.loads((CORPUS / MANIFEST).read_text())
STATIC = [name for name, one in MANIFESTED.items() if "pictures" in one and not name.startswith("dynamic")]


@contextmanager
def serving() -> Iterator[str]:
    """Where the page is, with every model of the corpus, the fuzzers' one, and the embedded ones."""
    if not (pages.PAGE / "index.html").is_file():
        pytest.skip("the page is not built: make web (it needs npm)")
    sources = [path for path in (ROOT / "web").rglob("*") if path.is_file() and "node_modules" not in path.parts]
    newest = max(path.stat().st_mtime for path in sources)
    assert newest <= (pages.PAGE / "index.html").stat().st_mtime, "the page is older than web/: make web"
    models = [CORPUS / f"{name}.licq" for name in (*STATIC, "dynamic")]
    site = pages.Site([*EMBEDDED, SEED, *models], sorted((ASSETS / "images").glob("*.png"))[:1], EMBEDDED[2])
    server = pages.listen(site, 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server.url
    server.http.shutdown()
    thread.join()


class Opened:
    """The page in a window, with whatever the browser complained of or asked a network for."""

    def __init__(self, browser: Any, url: str, width: int = 1000, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **more)
        self.page = self.context.new_page()
        self.page.set_default_timeout(240_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url, wait_until="load")

    def give(self, file: Path) -> str:
        """Choose a file, and wait: the error that is shown, empty where there is none."""
        self.page.locator("#file").set_input_files(file)
        return self.outcome()

    def outcome(self) -> str:
        self.page.locator("#progress").wait_for(state="hidden")
        problem = self.page.locator("#problem")
        assert problem.is_visible() != self.page.locator("#result").is_visible()
        return problem.text_content() if problem.is_visible() else ""

    def digests(self) -> dict[str, str]:
        self.page.locator("#digests summary").click()
        self.page.locator("#digests dd").first.wait_for()
        return dict(
            self.page.evaluate(
                "[...document.querySelectorAll('#digests div')].map((row) => "
                "[row.querySelector('dt').textContent, row.querySelector('dd').textContent])"
            )
        )

    def pixels(self) -> np.ndarray:
        """The canvas, uint8 [H, W, 4]."""
        found = self.page.evaluate(
            "(() => { const c = document.getElementById('canvas');"
            " return [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] })()"
        )
        return np.array(found[2:], np.uint8).reshape(found[0], found[1], 4)


def codec_of(model: Path) -> Codec:
    data = model.read_bytes()
    return Codec(Artifact.from_bytes(data), artifact_id(data), "exact", 1)
