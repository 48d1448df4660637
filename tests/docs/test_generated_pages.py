"""Pages that scripts make are what those make now."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["make_commands_page.py", "make_layers_page.py"])
def test_the_page_is_what_its_script_makes(script: str) -> None:
    pytest.importorskip("compressai" if script == "make_commands_page.py" else "numpy")
    done = subprocess.run([sys.executable, ROOT / "tools" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run python tools/{script}\n{done.stderr}"


def test_every_page_is_in_the_navigation_and_every_link_of_the_readme_leads_somewhere() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation, page.name
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_the_front_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
