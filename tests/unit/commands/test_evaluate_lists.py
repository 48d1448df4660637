"""evaluate with images as ``--calib`` takes them: files, nested folders, lists; a bad one is an error by its name."""

import json
from pathlib import Path

import pytest

from licquant.commands.app import main
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub dir").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "sub dir/c.png")):
        write_image(folder / name, dead_leaves(1, 64, seed=seed)[0])
    return folder


def evaluate(artifact: Path, output: Path, *images: Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--images", *map(str, images), "--models", str(artifact), "-o", str(output)])
    return int(stop.value.code or 0)


def names(output: Path) -> list[str]:
    return [image["name"] for image in json.loads(output.read_text())["curves"][0]["points"][0]["images"]]


def test_lists(tmp_path: Path, photos: Path, artifact_path: Path) -> None:
    """Paths from the list's own folder; nothing twice, whoever names it."""
    listed = photos / "few.txt"
    listed.write_text("# chosen\r\nsub dir/c.png\r\n\r\na.png\r\na.png\n", newline="")
    assert evaluate(artifact_path, tmp_path / "r.json", listed) == 0
    assert names(tmp_path / "r.json") == ["c.png", "a.png"]
    assert evaluate(artifact_path, tmp_path / "r.json", photos / "b.png", listed, photos / "sub dir") == 0
    assert names(tmp_path / "r.json") == ["b.png", "c.png", "a.png"]


@pytest.mark.parametrize("kind", ["missing", "broken", "empty list", "folder"])
def test_one_that_cannot_be_measured(tmp_path: Path, photos: Path, artifact_path: Path, capsys, kind: str) -> None:
    """Averages over other images than those asked for would be wrong, so nothing is written."""
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:500])
    listed = photos / "few.txt"
    lines = {"missing": "a.png\nnone.png\n", "broken": "a.png\nbroken.png\n", "folder": "sub dir\n"}
    listed.write_text(lines.get(kind, ""))
    assert evaluate(artifact_path, tmp_path / "r.json", listed) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("licquant: ")
    assert {"missing": "none.png", "broken": "broken.png", "folder": "sub dir"}.get(kind, "few.txt") in line
    assert not (tmp_path / "r.json").exists()
