"""Pages that scripts make are what those make now."""

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
