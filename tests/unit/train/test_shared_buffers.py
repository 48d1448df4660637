"""Two real processes whose starting points differ: both train from the first one's, at setup and after a refit."""

import json
from pathlib import Path

import pytest

from tests.processes import finish


@pytest.mark.slow
def test_buffers_of_all_processes_are_the_first_ones(tmp_path: Path) -> None:
    finish("tests.unit.train.processes_with_buffers", [tmp_path])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    at_setup, before_refit, after_refit, offset = first
    assert at_setup == before_refit == [[1.0, 1.0], [1, 1]]
    assert after_refit == [[5.0, 5.0], [1, 1]]
    assert min(map(abs, offset)) > 0
