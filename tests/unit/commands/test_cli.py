"""The commands as a user runs them: results, JSON, one line on bad input, no traceback, no partial file."""

import json
import subprocess
import sys

import numpy as np
import pytest

from licquant.commands.app import main, spread_lists
from licquant.images import read_image, write_image
from licquant.program.self_test import KINDS, Sums
from tests.models_for_tests import save_small_checkpoint


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "licquant", *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


def fails(capsys, *words: object) -> str:
    """Runs in this process; returns the one line of the error."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("licquant: ")
    return lines[0]


@pytest.fixture
def picture(tmp_path, image):
    write_image(tmp_path / "in.png", image)
    return tmp_path / "in.png"


def test_encode_decode_inspect(tmp_path, picture, artifact_path, codec, image):
    encoded = run("encode", picture, "-m", artifact_path, "-o", tmp_path / "out.lic", "--json")
    assert encoded.returncode == 0, encoded.stderr
    record = json.loads(encoded.stdout)
    assert record["bytes"] == (tmp_path / "out.lic").stat().st_size
    assert record["bpp"] == pytest.approx(8 * record["bytes"] / (96 * 130))
    decoded = run("decode", tmp_path / "out.lic", "-m", artifact_path, "-o", tmp_path / "back.png")
    assert decoded.returncode == 0, decoded.stderr
    np.testing.assert_array_equal(read_image(tmp_path / "back.png"), codec.decode(codec.encode(image)))
    shown = json.loads(run("inspect", tmp_path / "out.lic", "--json").stdout)
    assert (shown["width"], shown["height"]) == (130, 96)
    model = json.loads(run("inspect", artifact_path, "--json").stdout)
    assert {layer["weight_bits"] for layer in model["layers"]} == {8, None}
    assert sum(layer["bytes"] for layer in model["layers"]) < model["bytes"]


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 JPEG", b"LICI", b"LICI" + bytes(40)])
def test_bad_coded_images(capsys, tmp_path, artifact_path, content):
    (tmp_path / "x.lic").write_bytes(content)
    fails(capsys, "decode", tmp_path / "x.lic", "-m", artifact_path, "-o", tmp_path / "back.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.lic"]


def test_other_bad_input(capsys, tmp_path, picture, artifact_path):
    out = tmp_path / "o.lic"
    assert "no such file" in fails(capsys, "encode", tmp_path / "missing.png", "-m", artifact_path, "-o", out)
    assert "cannot be read" in fails(capsys, "encode", picture, "-m", tmp_path / "missing.licq", "-o", out)
    assert "begin with LICQ" in fails(capsys, "encode", picture, "-m", picture, "-o", out)
    assert "unknown engine" in fails(capsys, "encode", picture, "-m", artifact_path, "-o", out, "--engine", "abacus")
    assert "neither" in fails(capsys, "inspect", picture)
    assert "no such folder" in fails(capsys, "encode", picture, "-m", artifact_path, "-o", tmp_path / "no" / "o.lic")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png"]


def test_bad_options_of_quantize(capsys, tmp_path, picture):
    checkpoint = tmp_path / "c.pt"
    common = ("quantize", "--checkpoint", checkpoint, "--calib", tmp_path, "-o", tmp_path / "m.licq")
    assert "budget" in fails(capsys, *common, "--budget", "bits=0")
    assert "ranges" in fails(capsys, *common, "--ranges", "guess")
    assert "λ" in fails(capsys, *common)
    assert "no such file" in fails(capsys, *common, "--lmbda", "0.01")
    assert "not a folder" in fails(capsys, *common[:3], "--calib", tmp_path / "no", "-o", tmp_path / "m.licq")


@pytest.mark.slow
def test_quantize_and_evaluate(tmp_path, picture):
    save_small_checkpoint(tmp_path)
    calib, test = tmp_path / "calib", tmp_path / "test"
    for folder in (calib, test, test / "deep"):
        folder.mkdir()
        write_image(folder / "a.png", np.ascontiguousarray(np.resize(read_image(picture), (128, 192, 3))))
    quantized = run(
        "quantize",
        "--checkpoint",
        tmp_path / "c.pt",
        "--calib",
        calib,
        "--steps",
        2,
        "-o",
        tmp_path / "m.licq",
        "--json",
    )
    assert quantized.returncode == 0, quantized.stderr
    record = json.loads(quantized.stdout)
    assert record["bytes"] < record["fp32_bytes"]
    evaluated = run(
        "evaluate",
        "--images",
        test,
        "--models",
        tmp_path / "m.licq",
        "--reference",
        tmp_path / "c.pt",
        "-o",
        tmp_path / "r.json",
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "bpp: 8 × all bytes of the coded file / pixels" in evaluated.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    names = [image["name"] for image in report["curves"][0]["points"][0]["images"]]
    assert names == [str(test / "a.png"), str(test / "deep" / "a.png")]
    assert report["reference"]["points"][0]["bpp"] > 0
    assert (tmp_path / "r-rd.png").stat().st_size > 1000
    assert (tmp_path / "r-layers-uniform-bits=8-a8-0.01.png").stat().st_size > 1000


def test_lists_of_files():
    assert spread_lists(["quantize", "--checkpoint", "a", "b"]) == ["quantize", "--checkpoint", "a", "b"]
    assert spread_lists([]) == []
    assert spread_lists(["evaluate", "--models", "a", "b", "--images", "d", "e", "-o", "x"]) == [
        "evaluate", "--models", "a", "--models", "b", "--images", "d", "--images", "e", "-o", "x",
    ]  # fmt: skip


def test_coding_never_imports_torch(tmp_path, picture, artifact_path):
    script = (
        "import sys, licquant\n"
        f"codec = licquant.load({str(artifact_path)!r})\n"
        f"codec.decode(codec.encode(licquant.read_image({str(picture)!r})))\n"
        "print(sorted({'torch', 'compressai', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_inspect_tells_of_the_machine():
    record = json.loads(run("inspect", "--machine", "--json").stdout)
    assert record["kind"] == "machine"
    assert set(record["int8"]) == set(KINDS)
    assert set(record["int8"].values()) <= {sums.value for sums in Sums}
    assert record["used"].startswith(("INT8", "float32"))
    assert record["self_test_ms"] > 0
    shown = run("inspect", "--machine").stdout
    for kind, sums in record["int8"].items():
        assert f"INT8 {kind}: {sums}" in shown
    assert f"used: {record['used']}" in shown
    assert record["cpu"] in shown
