"""quantize with calibration images as people have them: nested, listed, some of them of no use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licquant.commands.app import main
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import save_small_checkpoint

pytest.importorskip("compressai")


def test_bad_images_are_skipped_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_small_checkpoint(tmp_path)
    folder = tmp_path / "calib" / "of 2025"
    folder.mkdir(parents=True)
    for number, rgb in enumerate(dead_leaves(3, 128)):
        write_image(folder / f"{number}.png", rgb)
    cut = (folder / "0.png").read_bytes()
    (folder.parent / "cut.png").write_bytes(cut[: len(cut) // 2])
    Image.new("RGBA", (128, 128), (1, 2, 3, 99)).save(folder.parent / "glass.png")
    common = ["quantize", "--checkpoint", str(tmp_path / "c.pt"), "--lmbda", "0.01", "--steps", "0", "--json"]
    with pytest.raises(SystemExit) as stop:
        main([*common, "--calib", str(tmp_path / "calib"), "-o", str(tmp_path / "skipped.licq")])
    assert stop.value.code == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert len(record["skipped"]) == 2
    assert "2 of 5 calibration images were skipped" in captured.err
    assert "cut.png: cannot be read" in captured.err
    assert "glass.png: has transparent pixels" in captured.err

    names = tmp_path / "names.txt"
    names.write_text("".join(f"calib/of 2025/{number}.png\n" for number in range(3)))
    with pytest.raises(SystemExit) as stop:
        main([*common, "--calib", str(names), "-o", str(tmp_path / "listed.licq")])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == []

    with pytest.raises(SystemExit) as stop:
        main([*common, "--calib", str(tmp_path / "calib"), "--strict", "-o", str(tmp_path / "strict.licq")])
    assert stop.value.code == 1
    assert "cut.png" in capsys.readouterr().err
    assert not (tmp_path / "strict.licq").exists()
    assert np.array_equal(*(plan_of(tmp_path / f"{name}.licq") for name in ("skipped", "listed")))


def plan_of(path: Path) -> np.ndarray:
    """The weights and tables of an artifact, as bytes: the same images calibrated it."""
    from licquant.codec.files.artifact import blob_sizes

    header, sizes = blob_sizes(path.read_bytes())
    assert header["provenance"]["calibration_images"] in (3, 5)
    content = path.read_bytes()[:-32]
    return np.frombuffer(content[-sum(sizes) :], np.uint8)
