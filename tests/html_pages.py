"""A report for the tests: made by ``licquant evaluate --html`` with small models, and its page as elements."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch

from licquant import pipeline
from licquant.commands.app import main
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior

# A name that would be markup if anybody forgot to escape it.
HOSTILE = "<script>document.title='broken'<&\"' img src=x onerror=alert(1)>.png"
LMBDAS = (0.005, 0.01, 0.02, 0.04)


def make_report(folder: Path) -> Path:
    """``folder``/report of two images, one of a hostile name, at four λ, and beside it results.json."""
    images = folder / "images"
    images.mkdir()
    leaves = dead_leaves(2, 544, seed=3)
    write_image(images / "a.png", np.ascontiguousarray(leaves[0][:400]))
    write_image(images / HOSTILE, np.ascontiguousarray(leaves[1][:96, :130]))
    words: list[object] = ["evaluate", "--images", images, "-o", folder / "results.json", "--html", folder / "report"]
    words += ["--threads", 1, "--models"]
    models = {lmbda: small_hyperprior(seed=seed) for seed, lmbda in enumerate(LMBDAS)}
    for lmbda, model in models.items():
        made = pipeline.quantize(model, dead_leaves(2, 128), provenance={"lmbda": lmbda, "method": "<b>"})
        made.artifact.save(folder / f"{lmbda}.licq")
        words.append(folder / f"{lmbda}.licq")
    words.append("--reference")
    for lmbda, model in models.items():
        torch.save(model.state_dict(), folder / f"{lmbda}.pt")
        (folder / f"{lmbda}.json").write_text(json.dumps({"lmbda": lmbda}))
        words.append(folder / f"{lmbda}.pt")
    threads = torch.get_num_threads()
    main_without_exit([str(word) for word in words])
    torch.set_num_threads(threads)
    return folder / "report"


def main_without_exit(words: list[str]) -> None:
    """The command in this process; one that fails fails the test."""
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, stop.code


@dataclass(eq=False)
class Element:
    """An element of a page, with what it holds."""

    name: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list["Element"] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.words) + "".join(child.text for child in self.children)

    def all(self, name: str, **attributes: str) -> list["Element"]:
        """Every element below of that name, with those attributes."""
        found = []
        for child in self.children:
            if child.name == name and attributes.items() <= child.attributes.items():
                found.append(child)
            found += child.all(name, **attributes)
        return found


class _Reader(HTMLParser):
    EMPTY = ("meta", "link", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, dict(attrs))
        self.open[-1].children.append(made)
        if tag not in self.EMPTY:
            self.open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"{tag} ends inside {self.open[-1].name}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].words.append(data)


def read_page(text: str) -> Element:
    """The page; fails where elements do not end in the order in which they began."""
    reader = _Reader()
    reader.feed(text)
    assert len(reader.open) == 1, reader.open[-1].name
    return reader.open[0]


def numbers(table: Element) -> list[list[float | None]]:
    """The figures of a table's body, row by row, as programs read them; None for a dash."""
    (body,) = table.all("tbody")
    return [[_number(cell) for cell in row.all("td")] for row in body.all("tr")]


def _number(cell: Element) -> float | None:
    found = cell.all("data")
    return float(found[0].attributes["value"] or "nan") if found else None


def table_of(page: Element, caption: str) -> Element:
    (found,) = [table for table in page.all("table") if table.all("caption")[0].text == caption]
    return found
