"""Starts are measured with Python's bytecode, whatever the environment says."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import with_bytecode


def test_processes_leave_and_find_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    command = [sys.executable, "-c", "import licquant.errors"]
    subprocess.run(command, env=with_bytecode(tmp_path), check=True)
    assert list(tmp_path.rglob("errors.*.pyc"))
