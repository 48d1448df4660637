"""Two real processes whose starting points differ: both train from the first one's."""

import json
from pathlib import Path

import pytest

from tests.processes import finish


@pytest.mark.slow
def test_buffers_of_all_processes_are_the_first_ones(tmp_path: Path) -> None:
    finish("tests.unit.train.processes_with_buffers", [tmp_path])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    *buffers, offset = first
    assert buffers == [[[1.0, 1.0], [1, 1]]] * 3
    assert min(map(abs, offset)) > 0
