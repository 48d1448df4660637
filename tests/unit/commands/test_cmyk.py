"""A CMYK JPEG with its profile, from the command line to the decoded picture: in right colours, and said."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from licquant.commands.app import main
from licquant.images import read_picture
from tests.unit.profiles import cmyk_profile

INKS = {
    "paper": ((0, 0, 0, 0), (255, 255, 255)),
    "cyan": ((255, 0, 0, 0), (0, 160, 220)),
    "magenta": ((0, 255, 0, 0), (220, 0, 130)),
    "yellow": ((0, 0, 255, 0), (255, 235, 0)),
    "black": ((0, 0, 0, 255), (35, 30, 30)),
}
FAR = 70  # of 255: printing inks differ, but none is taken for its opposite
REAL = sorted(Path("/usr/share/color/icc").rglob("*[Cc][Mm][Yy][Kk]*.ic[cm]"))


def jpeg(path: Path, profile: bytes) -> Path:
    """Stripes of 64 pixels of each ink."""
    image = Image.new("CMYK", (64 * len(INKS), 64))
    for number, (ink, _) in enumerate(INKS.values()):
        image.paste(ink, (64 * number, 0, 64 * number + 64, 64))
    image.save(path, icc_profile=profile, quality=95)
    return path


def assert_right(rgb: np.ndarray, tolerance: int) -> None:
    for number, (name, (_, wanted)) in enumerate(INKS.items()):
        middle = rgb[16:48, 64 * number + 16 : 64 * number + 48].reshape(-1, 3).mean(axis=0)
        assert np.abs(middle - wanted).max() < tolerance, (name, middle)


@pytest.mark.parametrize(
    "profile",
    [cmyk_profile(), *(path.read_bytes() for path in REAL)],
    ids=["made by hand", *(path.stem for path in REAL)],
)
def test_a_cmyk_jpeg_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: bytes) -> None:
    path = jpeg(tmp_path / "a.jpg", profile)
    assert_right(read_picture(path).rgb, FAR)
    for words in (["encode", path, "-o", tmp_path / "a.lic", "--quality", 4], ["decode", tmp_path / "a.lic", "-o", tmp_path / "a.png"]):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, words)))
        assert not stop.value.code
    assert "a.jpg: converted from CMYK to sRGB by its colour profile" in capsys.readouterr().err
    decoded = Image.open(tmp_path / "a.png")
    assert "icc_profile" not in decoded.info
    assert_right(np.asarray(decoded), FAR + 20)
