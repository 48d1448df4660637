"""The benchmark's bookkeeping, with codecs that only copy."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import speed


class Copy:
    """A codec that stores samples as they are and writes down when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def encode(self, rgb: np.ndarray) -> bytes:
        self.calls.append(f"{self.name} encode")
        self.shape = rgb.shape
        return rgb.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        self.calls.append(f"{self.name} decode")
        return np.frombuffer(data, np.uint8).reshape(self.shape)


def test_runs_alternate_after_a_warm_up(tmp_path: Path) -> None:
    image = tmp_path / "a.ppm"
    speed.write_image(image, np.zeros((4, 6, 3), np.uint8))
    calls: list[str] = []
    pairs = speed.measure(Copy("A", calls), Copy("B", calls), [image], 2, tmp_path)
    assert {operation: len(found) for operation, found in pairs.items()} == {"encode": 2, "decode": 2}
    a_first = ["A encode", "B encode", "A decode", "B decode"]
    b_first = ["B encode", "A encode", "B decode", "A decode"]
    assert calls == [*a_first, *b_first, *a_first]  # the first four are the warm-up
    assert (tmp_path / "licquant.ppm").read_bytes() == image.read_bytes()


def test_summary_is_the_median_of_paired_ratios() -> None:
    pairs = [speed.Pair(1, 4), speed.Pair(2, 4), speed.Pair(1, 9)]
    summary = speed.summarize(pairs)
    assert summary["ratio_median"] == 4
    assert (summary["ratio_min"], summary["ratio_max"], summary["pairs"]) == (2, 9, 3)
    assert (summary["licquant_ms"], summary["reference_ms"]) == (1000, 4000)


def test_both_image_formats_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    speed.write_image(image, np.zeros((4, 6, 3), np.uint8))
    measured = speed.run(Copy("A", []), Copy("B", []), [image], 1, Console(quiet=True))
    assert list(measured) == ["ppm", "png"]
    results = {name: {key: speed.summarize(found) for key, found in row.items()} for name, row in measured.items()}
    Console(width=200).print(speed.results_table(results, 4.0, 2))
    assert "nominal 32/bits, not a measurement: 4.00 ×" in capsys.readouterr().out
