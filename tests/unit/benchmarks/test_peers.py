"""The bookkeeping of the comparison with other codecs, with one that only copies."""

import numpy as np
import pytest
from rich.console import Console

from benchmarks import peers


class Rounded:
    """Stores samples rounded down to steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def encode(self, rgb: np.ndarray) -> bytes:
        self.shape = rgb.shape
        return (rgb // self.step).tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.uint8).reshape(self.shape) * np.uint8(self.step)


IMAGES = [np.random.default_rng(n).integers(0, 256, (8, 12, 3)).astype(np.uint8) for n in range(2)]


def test_a_curve_has_means_over_the_images() -> None:
    curve = peers.Curve.of([Rounded(16), Rounded(4)], IMAGES)
    assert curve.bits == [24, 24]
    alone = [peers.psnr(rgb, rgb // 16 * 16) for rgb in IMAGES]
    assert curve.quality[0] == pytest.approx(np.mean(alone))
    assert curve.quality[1] > curve.quality[0]


def test_a_peer_is_timed_in_pairs_and_stands_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = peers.timed(Rounded(2), Rounded(16), IMAGES, 2)
    assert (found["encode"]["pairs"], found["decode"]["pairs"], found["bpp"]) == (4, 4, 24)
    Console(width=200).print(peers.table_of({"rounded": found, "absent": {"not_measured": "ImportError: none"}}))
    printed = capsys.readouterr().out
    assert "24.000" in printed
    assert "ImportError: none" in printed


def test_what_cannot_be_had_is_said_and_is_no_error() -> None:
    def missing() -> dict[str, object]:
        raise ImportError("no nncf")

    assert peers.attempt("NNCF", missing, Console(quiet=True)) == {"not_measured": "ImportError: no nncf"}


@pytest.mark.parametrize("quality", [30, 80])
def test_pillow_writes_and_reads_avif(quality: int) -> None:
    codec = peers.PillowCodec("AVIF", quality)
    assert codec.decode(codec.encode(IMAGES[0])).shape == IMAGES[0].shape
