"""Imports follow the layers; and the checker sees what breaks them."""

from pathlib import Path

import pytest

from tests.meta.layers import violations

PACKAGE = Path(__file__).parents[2] / "src" / "licquant"


def test_imports_follow_the_layers() -> None:
    assert violations(PACKAGE) == []


def sample(folder: Path, name: str, source: str) -> Path:
    package = folder / "licquant"
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return package


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("errors.py", "from licquant import images", "errors may not import licquant.images"),
        ("config.py", "import licquant.images", "config may not import licquant.images"),
        ("program/a.py", "from ..codec import coder", "program may not import licquant.codec"),
        ("program/a.py", "from .. import codec", "program may not import licquant.codec"),
        ("program/deep/a.py", "from ...codec.coder import x", "program may not import licquant.codec.coder"),
        ("codec/a.py", "def f():\n    import torch.nn as nn", "a.py:2: codec may not import torch.nn"),
        ("codec/a.py", "import importlib\nimportlib.import_module('torch')", "codec may not import torch"),
        ("codec/a.py", "if TYPE_CHECKING:\n    from torch import Tensor", "codec may not import torch"),
        ("codec/a.py", "import licquant", "codec may not import licquant"),
        ("images.py", "from matplotlib import pyplot", "images may not import matplotlib"),
        (
            "evaluate/a.py",
            "from licquant.models import load_model",
            "evaluate may not import licquant.models",
        ),
        (
            "models/a.py",
            "from licquant.evaluate.metrics import x",
            "models may not import licquant.evaluate.metrics",
        ),
        ("lower/a.py", "from licquant.pipeline import quantize", "lower may not import licquant.pipeline"),
        ("__init__.py", "from licquant.models import load_model", "__init__ may not import licquant.models"),
        ("__init__.py", "def f():\n    import torch", "__init__ may not import torch"),
        (
            "codec/entropy/a.py",
            "from licquant.codec.files import artifact",
            "codec may not import licquant.codec.files",
        ),
        (
            "codec/files/a.py",
            "from ..latents.families import x",
            "codec may not import licquant.codec.latents.families",
        ),
        ("codec/latents/a.py", "from licquant.codec.codec import load", "codec may not import licquant.codec.codec"),
        ("codec/latents/a.py", "from licquant.codec import codec", "codec may not import licquant.codec.codec"),
        ("quant/a.py", "from licquant.quant.in_training import x", "quant may not import licquant.quant.in_training"),
        ("dynamic/a.py", "from licquant.commands import app", "dynamic may not import licquant.commands"),
        ("commands/coding.py", "import torch", "commands may not import torch"),
        ("extra/a.py", "", "extra has no place in the layers"),
        ("extra.py", "", "extra has no place in the layers"),
    ],
)
def test_what_breaks_the_layers_is_seen(tmp_path: Path, name: str, source: str, complaint: str) -> None:
    found = violations(sample(tmp_path, name, source))
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "codec/a.py",
            "from licquant.program import engine\nfrom . import coder\nfrom .files.tables import x\nimport numpy",
        ),
        ("lower/a.py", "from licquant import quant, program\nimport torch"),
        ("models/a.py", "from ..errors import ModelError\nimport compressai"),
        ("commands/app.py", "import licquant\nfrom licquant import pipeline\nimport torch"),
        ("codec/latents/a.py", "from licquant.codec.files.artifact import x\nfrom .orders import x"),
        ("__init__.py", "from licquant.codec import load\nfrom .errors import LicquantError"),
    ],
)
def test_what_fits_the_layers_passes(tmp_path: Path, name: str, source: str) -> None:
    assert violations(sample(tmp_path, name, source)) == []
