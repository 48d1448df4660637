"""Tables of README and documentation are those of results/*.json; and the check sees a figure that is not."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import bjontegaard

ROOT = Path(__file__).parents[2]


def _tool() -> object:
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "tools" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


def test_pages_and_results_are_the_same() -> None:
    done = subprocess.run([sys.executable, TOOL.__file__, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_result_is_complete_and_stands_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in TOOL.pages())
    names = [path.stem for path in TOOL.RESULTS.glob("*.json")]
    assert names
    for name in names:
        assert TOOL.read(name)["rows"]
        assert f"<!-- result: {name} -->" in text, name


def test_an_altered_figure_is_seen() -> None:
    right = TOOL.filled("before\n<!-- result: speed -->\n<!-- end -->\nafter")
    result = TOOL.read("speed")
    figure = result["columns"][-1]["format"].format(result["rows"][0][-1])
    assert figure in right
    wrong = right.replace(figure, "99.9 ×")
    assert wrong != right
    assert TOOL.filled(wrong) == right
    assert TOOL.filled(right) == right


def test_it_tells_which_results_are_old() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "results_age.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(TOOL.RESULTS.glob("*.json")))


# What is below a table up to the next table or heading.
_TABLE = re.compile(r"<!-- result: ([\w-]+) -->.*?<!-- end -->(.*?)(?=<!-- result|\n#|\Z)", re.DOTALL)
_SAID = re.compile(r"BD-rate(?: is| \(PCHIP\) against the FP32 model)?:? \**([+−]\d+\.\d+) %")
_CURVES = ["λ", "FP32 bpp", "FP32 PSNR", "licquant bpp", "licquant PSNR"]
_ROUNDED = 0.12  # percent: what PSNR in two decimals leaves open where a curve is flat


def _bd_rate(rows: list[list[float]]) -> float:
    """Of a table's first row for every λ."""
    _, *curves = zip(*sorted({row[0]: row for row in reversed(rows)}.values()), strict=True)
    return float(bjontegaard.bd_rate(*curves, method="pchip", require_matching_points=False))


def _said() -> dict[str, tuple[float, float]]:
    """Table of four λ → (the BD-rate said below it, that of its rows)."""
    found = {}
    for page in TOOL.pages():
        for name, below in _TABLE.findall(page.read_text(encoding="utf-8")):
            result = TOOL.read(name)
            names, said = [column["name"] for column in result["columns"]], _SAID.search(below)
            if said and set(_CURVES) <= set(names):
                rows = [[row[names.index(column)] for column in _CURVES] for row in result["rows"]]
                found[name] = float(said[1].replace("−", "-")), _bd_rate(rows)
    return found


def test_bd_rates_below_tables_are_those_of_their_rows() -> None:
    said = _said()
    expected = {"cheng2020-8-bits", "cheng2020-dpa", "cheng2020-dynamic", "elic-8-bits", "elic-dpa", "mbt2018-8-bits"}
    assert expected <= set(said)
    for name, (stated, computed) in said.items():
        assert abs(stated - computed) < _ROUNDED, (name, stated, computed)


_LINK = re.compile(r"\[([^\]]*\d\.\d[^\]]*)\]\(([\w/-]+\.md)")
_FIGURE = re.compile(r"[+−]?\d+\.\d+")


def _absent(text: str) -> list[tuple[str, str]]:
    """Figures (with the pages) of links of the papers' page that the linked page does not have."""
    docs = ROOT / "docs"
    found = [(figure, page) for said, page in _LINK.findall(text) for figure in _FIGURE.findall(said)]
    assert len(found) > 20
    pages = {page: set(_FIGURE.findall((docs / page).read_text(encoding="utf-8"))) for _, page in found}
    return [(figure, page) for figure, page in found if figure not in pages[page]]


def test_what_the_papers_page_says_stands_where_it_links_to() -> None:
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert _absent(text) == []
    assert _absent(text.replace("[−0.20 %]", "[−77.09 %]")) == [("−77.09", "results.md")]
