"""Every family gives the same symbols and pixels on every level of instructions, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.codec import load
from licquant.errors import ArtifactError
from tests.conformance.pictures import PICTURES

CORPUS = Path(__file__).parents[1] / "conformance" / "corpus"
LEVELS = (pytest.param("AVX512_CORE", marks=pytest.mark.long), "AVX2", "SSE41")
CHOSEN = ("scene", "saturated", "noise", "checker", "black")
LARGEST_PIXEL_DIFFERENCE, LARGEST_LOSS, LARGEST_PSNR = 2, 0.002, 0.05  # levels, share, dB
LAMBDA = 0.013


def models() -> list[Path]:
    """An artifact of every family and of widths from 2 to 16 bits, and the embedded ones."""
    return sorted(CORPUS.glob("*.licq")) + sorted((Path(licquant.__file__).parent / "assets").glob("*.licq"))


def write_results(target: Path) -> None:
    """Of each artifact and picture: bytes, pixels, and the symbols that the decoder reads."""
    found = {}
    for path in models():
        try:
            codec = load(path, threads=1)
        except ArtifactError:
            continue  # an old version of the format, which is no longer read
        for name in CHOSEN:
            data = codec.encode(PICTURES[name]())
            symbols, pixels = codec.decode_symbols(data).y, codec.decode(data)
            found[f"{path.stem}/{name}"] = np.concatenate([[len(data)], symbols.ravel(), pixels.ravel()]).astype(int)
    np.savez(target, **found)


def run(target: Path, level: str | None) -> dict[str, np.ndarray]:
    words = (
        "import sys; from pathlib import Path; from tests.equivalence.test_instruction_sets import write_results as w;"
    )
    environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": level} if level else {})}
    command = [sys.executable, "-c", f"{words} w(Path(sys.argv[1]))", str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip(f"this machine cannot imitate {level}")
    assert done.returncode == 0, done.stderr
    with np.load(target) as found:
        return dict(found)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return run(tmp_path_factory.mktemp("native") / "found.npz", None)


def loss(found: np.ndarray, picture: np.ndarray) -> tuple[float, float]:
    """(J, PSNR in dB)."""
    error = np.mean((found[-picture.size :] - picture.ravel().astype(float)) ** 2)
    return 8 * found[0] / (picture.size / 3) + LAMBDA * error, 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_family_gives_what_this_machine_gives(native, level, tmp_path):
    others = run(tmp_path / "found.npz", level)
    assert others.keys() == native.keys()
    assert len(native) > 10 * len(CHOSEN)
    faults = []
    for name, mine in native.items():
        theirs, picture = others[name], PICTURES[name.split("/")[1]]()
        first, second = loss(mine, picture), loss(theirs, picture)
        symbols = int((mine[1 : -picture.size] != theirs[1 : -picture.size]).sum())
        pixels = int(abs(mine[-picture.size :] - theirs[-picture.size :]).max())
        if (
            symbols
            or pixels > LARGEST_PIXEL_DIFFERENCE
            or abs(second[0] / first[0] - 1) > LARGEST_LOSS
            or abs(second[1] - first[1]) > LARGEST_PSNR
        ):
            faults.append(f"{name}: {symbols} symbols, pixels by {pixels}, J {first[0]} and {second[0]}")
    assert not faults
