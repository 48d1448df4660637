"""A CMYK JPEG with its profile, from the command line to the decoded picture: in right colours, and said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licquant.commands.app import main
from licquant.images import read_picture
from tests.unit.profiles import cmyk_profile

# Ink → which of red, green and blue it takes and which it leaves, as every printer's ink does; the rest differs.
INKS = {
    "paper": ((0, 0, 0, 0), "", "rgb"),
    "cyan": ((255, 0, 0, 0), "r", "b"),
    "magenta": ((0, 255, 0, 0), "g", "r"),
    "yellow": ((0, 0, 255, 0), "b", "rg"),
    "black": ((0, 0, 0, 255), "rgb", ""),
}
REAL = sorted(Path("/usr/share/color/icc").rglob("*[Cc][Mm][Yy][Kk]*.ic[cm]"))


def jpeg(path: Path, profile: bytes) -> Path:
    """Stripes of 64 pixels of each ink."""
    image = Image.new("CMYK", (64 * len(INKS), 64))
    for number, (ink, _, _) in enumerate(INKS.values()):
        image.paste(ink, (64 * number, 0, 64 * number + 64, 64))
    image.save(path, icc_profile=profile, quality=95)
    return path


def assert_right(rgb: np.ndarray) -> None:
    for number, (name, (_, taken, left)) in enumerate(INKS.items()):
        middle = rgb[16:48, 64 * number + 16 : 64 * number + 48].reshape(-1, 3).mean(axis=0)
        found = dict(zip("rgb", middle, strict=True))
        assert all(found[channel] < 100 for channel in taken), (name, found)
        assert all(found[channel] > 195 for channel in left), (name, found)


@pytest.mark.parametrize(
    "profile",
    [cmyk_profile(), *(path.read_bytes() for path in REAL)],
    ids=["made by hand", *(path.stem for path in REAL)],
)
def test_a_cmyk_jpeg_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: bytes) -> None:
    path = jpeg(tmp_path / "a.jpg", profile)
    assert_right(read_picture(path).rgb)
    coded, back = tmp_path / "a.lic", tmp_path / "a.png"
    for words in (["encode", path, "-o", coded, "--quality", 4], ["decode", coded, "-o", back]):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, words)))
        assert not stop.value.code
    assert "a.jpg: converted from CMYK to sRGB by its colour profile" in capsys.readouterr().err
    decoded = Image.open(back)
    assert "icc_profile" not in decoded.info
    assert_right(np.asarray(decoded))
