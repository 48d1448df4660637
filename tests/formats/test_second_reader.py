"""The reader that was written from docs/formats.md reads every file of the conformance corpus, to the last integer."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from licquant.images import Extras
from tests.conformance.run import digest_of_extras
from tests.formats import reader

CORPUS = Path(__file__).parents[1] / "conformance" / "corpus"
MANIFEST = json.loads((CORPUS / "manifest.json").read_text())
READ = [name for name, record in MANIFEST.items() if "pictures" in record]


def digest(values: np.ndarray) -> str:
    shape = ",".join(map(str, values.shape)).encode()
    return hashlib.sha256(shape + b":" + values.astype("<i4").tobytes()).hexdigest()


@pytest.mark.parametrize("name", READ)
def test_symbols_and_pixels_of_every_picture(name: str) -> None:
    model = reader.Model((CORPUS / f"{name}.licq").read_bytes())
    for picture, wanted in MANIFEST[name]["pictures"].items():
        stream = reader.read_lic((CORPUS / f"{name}.{picture}.lic").read_bytes())
        y, z = reader.decode_symbols(model, stream)
        assert digest(y) == wanted["y"], picture
        assert digest(z) == wanted["z"], picture
        assert digest(reader.decode_pixels(model, stream, y)) == wanted["pixels"], picture
        found = Extras(**reader.beside(stream))
        assert ("carried" in wanted) == bool(found.names()), picture
        assert digest_of_extras(found) == wanted.get("carried", digest_of_extras(Extras())), picture


@pytest.mark.parametrize("name", [name for name in MANIFEST if name not in READ])
def test_formats_that_were_never_released_are_refused(name: str) -> None:
    with pytest.raises(AssertionError):
        reader.Model((CORPUS / f"{name}.licq").read_bytes())


def test_it_shares_nothing_with_licquant() -> None:
    tree = ast.parse(Path(reader.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= {*sys.stdlib_module_names, "numpy"}


def test_the_page_has_the_worked_example_that_its_script_prints() -> None:
    script = Path(__file__).parents[2] / "tools" / "make_format_example.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert page.partition("<!-- example -->\n")[2].partition("<!-- /example -->\n")[0] == printed
