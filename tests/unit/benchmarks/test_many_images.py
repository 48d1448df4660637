"""Many images beside one after another, on a small model; and what makes the benchmark fail."""

from pathlib import Path

import pytest

from benchmarks.many_images import check_equal, measure
from benchmarks.speed import embedded
from benchmarks.train_runs import is_right
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves


def test_both_sides_are_timed_and_write_the_same_files(tmp_path: Path) -> None:
    for number, rgb in enumerate(dead_leaves(2, 64)):
        write_image(tmp_path / f"{number}.png", rgb)
    (tmp_path / "work").mkdir()
    images = [tmp_path / "0.png", tmp_path / "1.png"]
    found = measure(images, embedded("*-lambda0.0130.licq"), 2, 1, tmp_path / "work")
    assert set(found) == {"encode", "decode"}
    assert all(len(rows) == 1 and min(rows[0].values()) > 0 for rows in found.values())
    check_equal(tmp_path / "work" / "alone", tmp_path / "work" / "together")
    other = tmp_path / "work" / "together" / "0001.lic"
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r"0001\.lic: differs"):
        check_equal(tmp_path / "work" / "alone", tmp_path / "work" / "together")


@pytest.mark.parametrize(
    ("status", "losses", "right"),
    [(0, [2.0, 1.0], True), (-6, [2.0, 1.0], False), (0, [1.0, 2.0], False), (0, [1.0], False), (-11, [], False)],
)
def test_a_crash_or_a_loss_that_rises_is_not_right(status: int, losses: list[float], right: bool) -> None:
    assert is_right({"status": status, "losses": losses}) == right
