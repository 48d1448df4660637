"""The benchmark of families: its pairs, and its bars, which must be able to be missed."""

from pathlib import Path

import numpy as np

from benchmarks.families import SUBJECTS, Subject, measure_pairs, misses
from licquant.images import write_image
from tests.unit.benchmarks.test_speed import Copy


def test_every_fp32_run_stands_between_runs_of_licquant(tmp_path: Path) -> None:
    image = tmp_path / "a.ppm"
    write_image(image, np.zeros((4, 6, 3), np.uint8))
    calls: list[str] = []
    found = measure_pairs(Copy("A", calls), Copy("B", calls), image, tmp_path, pairs=2, repeats=4)
    assert {name: len(pairs) for name, pairs in found.items()} == {"encode": 2, "decode": 2}
    once = ["A", "A", "B", "A", "A"]
    assert calls == [f"{side} encode" for side in 3 * once] + [f"{side} decode" for side in 3 * once]


def result(**changed: float) -> dict[str, object]:
    values = {"encode": 6.0, "decode": 12.0, "context": 100.0, "memory": 8e8, "differ": 0, **changed}
    return {
        "speed": {name: {"ratio_median": values[name]} for name in ("encode", "decode")},
        "context_ms": values["context"],
        "decode_peak_bytes": values["memory"],
        "different": {"1 thread": values["differ"]},
    }


def test_bars_can_be_missed() -> None:
    subject = Subject("x", {}, {"encode": 6, "decode": 12, "context": 150})
    assert misses(subject, result()) == []
    for change in ({"encode": 5.9}, {"decode": 11.9}, {"context": 151.0}, {"memory": 8.1e8}, {"differ": 1}):
        assert len(misses(subject, result(**change))) == 1, change


def test_names_of_files_are_distinct() -> None:
    assert len({subject.path(Path(), ".json") for subject in SUBJECTS}) == len(SUBJECTS)
