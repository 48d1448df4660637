"""``licquant serve``: the page that codes and decodes in a browser, on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from licquant import browser
from licquant.commands.model_search import embedded
from licquant.errors import LicquantError
from licquant.images import list_images
from licquant.terminal import say

_SAMPLES = 2


def run(models: Sequence[Path], port: int, as_json: bool) -> None:
    """Until it is interrupted. models: whose files the page is to decode; the embedded ones if none is given."""
    found = list(models) or embedded()
    if not found:
        raise LicquantError("the embedded models are missing: install licquant from a complete source tree")
    server = browser.listen(site_of(found), port)
    line = f"{server.url} codes and decodes with {len(found)} models; Ctrl-C ends it"
    say(json.dumps({"url": server.url, "models": [str(path) for path in found]}) if as_json else line)
    server.run()


def site_of(models: Sequence[Path]) -> browser.Site:
    """The page with models in ascending λ, the middle one for the samples."""
    pictures = list_images(Path(str(resources.files("licquant") / "assets" / "images")))[:_SAMPLES]
    return browser.Site(models, pictures, models[len(models) // 2])
