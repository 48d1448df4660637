"""Artifacts that take turns: what their times are compared to."""

from pathlib import Path

import pytest

from benchmarks.side_by_side import OPERATIONS, measure, summary
from licquant.quant.synthetic import dead_leaves


def test_every_artifact_is_timed_on_every_image(artifact_path: Path) -> None:
    found = measure([artifact_path, artifact_path], dead_leaves(2, 64), threads=1, rounds=2)
    assert len(found) == 2
    assert all(len(times[name]) == 4 and min(times[name]) > 0 for times in found for name in OPERATIONS)


def test_ratios_are_of_pairs_with_the_first() -> None:
    first = {"encode": [1.0, 2.0, 4.0], "decode": [1.0, 1.0, 1.0]}
    other = {"encode": [2.0, 1.0, 4.0], "decode": [0.5, 0.5, 3.0]}
    rows = summary([first, other])
    assert rows[0] == {"encode_ms": 2000, "decode_ms": 1000, "encode_ratio": 1, "decode_ratio": 1}
    assert rows[1] == pytest.approx({"encode_ms": 2000, "decode_ms": 500, "encode_ratio": 1, "decode_ratio": 0.5})
