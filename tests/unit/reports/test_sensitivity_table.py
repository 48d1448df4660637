"""The table beside an artifact: read back as it was written, left out and said where it is anything else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from licquant.reports.sensitivity_table import place_beside, table_beside, write_table

LAYERS, BITS = ["g_a.0", "g_a.1"], [4, 8]
TABLES = {"weights": np.array([[0.5, 0.1], [0.2, np.nan]]), "activations": np.array([[1.0, 0.0], [-0.1, 3.0]])}
SHA = hashlib.sha256(b"artifact").hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_table(tmp_path / "model.licq", SHA, 0.01, LAYERS, BITS, TABLES)
    return tmp_path / "model.licq"


def test_what_is_written_is_read(artifact: Path) -> None:
    assert place_beside(artifact).name == "model-zeta.json"
    found = table_beside(artifact, SHA)
    assert found is not None
    assert (found["layers"], found["bits"], found["lmbda"]) == (LAYERS, BITS, 0.01)
    assert found["weights"] == [[0.5, 0.1], [0.2, None]]
    assert found["activations"] == [[1.0, 0.0], [-0.1, 3.0]]


def test_that_of_another_artifact_is_none_of_it(artifact: Path) -> None:
    assert table_beside(artifact, "0" * 64) is None
    assert table_beside(artifact.with_name("other.licq"), SHA) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "licquant-sensitivity/2"},
        {"layers": 3},
        {"bits": [4]},
        {"lmbda": None},
        {"lmbda": True},
        {"weights": [[1, 2]]},
        {"weights": [[1, 2], [3, "x"]]},
        {"weights": [[1, 2], [3, 10**400]]},
        {"activations": [[1, 2], [3, float("nan")]]},
        {"artifact": None},
    ],
)
def test_what_is_no_table_is_left_out_and_said(artifact: Path, change: dict[str, Any], capsys) -> None:
    place = place_beside(artifact)
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    assert table_beside(artifact, SHA) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == ("artifact" not in change)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"schema": "licquant-sensitivity/1"}'])
def test_damaged_files(artifact: Path, content: bytes, capsys) -> None:
    place_beside(artifact).write_bytes(content)
    assert table_beside(artifact, SHA) is None
    assert "left out" in capsys.readouterr().err
