"""Tables of README and documentation are those of results/*.json; and the check sees a figure that is not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

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
