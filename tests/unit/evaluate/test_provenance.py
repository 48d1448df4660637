"""Provenance: complete, JSON-ready, and free of names and folders."""

import getpass
import json
import platform
from pathlib import Path

import numpy as np
import pytest

from licquant.evaluate import provenance


def test_collect_is_json_ready_and_names_nobody() -> None:
    record = provenance.collect(threads=2, plan_hash="abc")
    text = json.dumps(record)
    assert record["threads"] == 2
    assert record["plan_hash"] == "abc"
    assert record["versions"]["numpy"] == np.__version__
    assert record["machine"]["cores"] >= 1
    assert record["time"].endswith("+00:00")
    assert str(Path.home()) not in text
    assert platform.node() not in text or len(platform.node()) < 4
    assert getpass.getuser() not in text or len(getpass.getuser()) < 5


def test_commit_is_none_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src" / "licquant" / "evaluate" / "provenance.py"))
    assert provenance.commit() is None


def test_a_missing_package_has_no_version() -> None:
    assert provenance.version("surely-not-a-package-of-this-name") is None
