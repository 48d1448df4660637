"""Pictures that were refused for their size: coded through the command, in 3 GB at most."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream

MODEL = sorted(Path(str(files("licquant"))).glob("assets/*.licq"))[0]
PHOTOGRAPH = sorted(Path(str(files("licquant"))).glob("assets/images/*"))[0]
ALLOWED = 3_000_000  # kB

PROGRAM = """
import resource, sys
from licquant.commands.app import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def peak_of(*words: object) -> int:
    """Kilobytes that a command had at most."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words), "-m", str(MODEL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stderr.splitlines()[-1])


def tiled(height: int, width: int) -> np.ndarray:
    tile = np.array(Image.open(PHOTOGRAPH).convert("RGB"))
    across = np.tile(tile, (1, -(-width // tile.shape[1]), 1))[:, :width]
    return np.concatenate([across] * -(-height // tile.shape[0]))[:height]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux gives it")
@pytest.mark.parametrize(
    ("width", "height", "suffix"), [(12000, 9000, ".png"), (16320, 12240, ".ppm"), (100_000, 700, ".tif")]
)
def test_large_pictures_in_little_memory(tmp_path: Path, width: int, height: int, suffix: str) -> None:
    source, coded, target = tmp_path / f"a{suffix}", tmp_path / "a.lic", tmp_path / f"b{suffix}"
    Image.fromarray(tiled(height, width)).save(source, **({"compress_level": 1} if suffix == ".png" else {}))
    assert peak_of("encode", source, "-o", coded) < ALLOWED
    assert FIELD_KINDS["regions"] in Bitstream.from_bytes(coded.read_bytes()).fields
    assert peak_of("decode", coded, "-o", target) < ALLOWED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        with Image.open(target) as found:
            assert found.size == (width, height)
            for left in (0, width - 800):  # at both ends of the last rows: everything in between was coded
                box = (left, height - 300, left + 800, height)
                error = np.asarray(found.crop(box), np.float64) - tiled(height, width)[-300:, left : left + 800]
                assert 10 * np.log10(255**2 / np.mean(error**2)) > 27
