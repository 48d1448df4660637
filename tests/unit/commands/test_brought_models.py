"""Commands find the model of a checkpoint: as given, by its card, by its weights; and what its λ weighs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from licquant.codec.files.artifact import Artifact
from licquant.commands.app import main
from licquant.errors import ModelError
from licquant.quant.synthetic import dead_leaves
from licquant.train.card import loss_of, model_of
from tests.models_for_tests import first_kind, hand_made, small_model

QUICK = ["--steps", "0"]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(dead_leaves(2, 192)):
        Image.fromarray(np.asarray(image)).save(folder / f"{number}.png")
    return folder


def checkpoint(folder, source, name="c", **card):
    torch.save(source.state_dict(), folder / f"{name}.pt")
    if card:
        (folder / f"{name}.json").write_text(json.dumps(card))
    return folder / f"{name}.pt"


def run(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0


def quantize(path, images, *more):
    output = path.with_suffix(".licq")
    run(["quantize", "--checkpoint", str(path), "--calib", str(images), "-o", str(output), *QUICK, *more])
    return Artifact.from_bytes(output.read_bytes())


@pytest.mark.parametrize("card", [{}, {"model": "mbt2018-mean"}, {"model": "what somebody calls it"}])
def test_quantize_finds_the_model(tmp_path, images, card):
    path = checkpoint(tmp_path, small_model("mbt2018-mean"), lmbda=0.01, **card)
    artifact = quantize(path, images)
    assert (artifact.family, artifact.provenance["model"]) == ("mean-scale-hyperprior", "mbt2018-mean")


def failure(capsys, arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(arguments)
    text = capsys.readouterr().err
    assert len(text.strip().splitlines()) == 1
    return text


def test_a_wrong_model_is_told(tmp_path, images, capsys):
    path = checkpoint(tmp_path, small_model("cheng2020-anchor"), lmbda=0.01)
    common = ["--checkpoint", str(path), "--calib", str(images), "-o", str(tmp_path / "m.licq")]
    text = failure(capsys, ["quantize", "--model", "mbt2018", *common, *QUICK])
    assert "these look like cheng2020-anchor, N=12, not mbt2018" in text
    path.with_suffix(".json").write_text(json.dumps({"model": "mbt2018", "lmbda": 0.01}))
    assert "these look like cheng2020-anchor" in failure(capsys, ["quantize", *common, *QUICK])


def test_a_card_names_no_code(tmp_path):
    path = checkpoint(tmp_path, small_model("mbt2018-mean"), model="os:system")
    assert model_of(path) is None


@pytest.mark.slow
def test_evaluate_takes_references_of_several_families(tmp_path, images):
    places = {}
    for name in ("bmshj2018-hyperprior", "mbt2018-mean"):
        card = {"model": name} if name == "mbt2018-mean" else {}
        places[name] = checkpoint(tmp_path, small_model(name), name, lmbda=0.01, **card)
        quantize(places[name], images)
    output = tmp_path / "results.json"
    artifacts = [str(path.with_suffix(".licq")) for path in places.values()]
    references = [str(path) for path in reversed(places.values())]
    run(["evaluate", "--images", str(images), "--models", *artifacts, "--reference", *references, "-o", str(output)])
    record = json.loads(output.read_text())
    labels = [reference["label"] for reference in record["references"]]
    assert sorted(labels) == sorted(f"CompressAI FP32 {name}" for name in places)
    found = {(c["label"], r) for c, r in zip(record["comparisons"], labels, strict=True)}
    assert {(label.split("model=")[1].split()[0], r.split()[-1]) for label, r in found} == {(n, n) for n in places}
    bytes_of = {name: 4 * sum(p.numel() for p in small_model(name).parameters()) for name in places}
    points = {r["label"].split()[-1]: r["points"][0] for r in record["references"]}
    assert {name: point["model_bytes"] for name, point in points.items()} == bytes_of
    for curve, comparison in zip(record["curves"], record["comparisons"], strict=True):
        reference = points[curve["label"].split("model=")[1].split()[0]]
        change = 100 * (curve["points"][0]["rd_loss"] / reference["rd_loss"] - 1)
        assert comparison["rd_loss_change_percent"]["0.01"] == pytest.approx(change)


def test_a_class_of_ones_own(tmp_path, images, capsys):
    path = checkpoint(tmp_path, first_kind(), lmbda=0.01)
    own = ["--model", "tests.models_for_tests:FirstKind", "--model-args", '{"n": 8, "m": 12}']
    artifact = quantize(path, images, *own)
    assert artifact.provenance["model"] == "tests.models_for_tests:FirstKind"
    assert artifact.provenance["model_args"] == {"n": 8, "m": 12}
    common = ["quantize", "--checkpoint", str(path), "--calib", str(images), "-o", str(tmp_path / "m.licq"), *QUICK]
    assert "not JSON" in failure(capsys, [*common, *own[:3], "{n: 8}"])
    assert "write a JSON object" in failure(capsys, [*common, *own[:3], "[8]"])
    assert "cannot be imported" in failure(capsys, [*common, "--model", "nowhere:Model"])


def test_what_a_class_lacks_is_named_with_its_path(tmp_path, images, capsys, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from tests.models_for_tests import HandMade\n"
        "class Grey(HandMade):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.g_a[0] = nn.Conv2d(1, 8, 7, stride=4, padding=3)\n"
        "class Swish(HandMade):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.g_a[1] = nn.SiLU()\n"
        "class Four(HandMade):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.g_s[3] = nn.ConvTranspose2d(8, 4, 8, stride=4, padding=2)\n"
        "class NoSynthesis(HandMade):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.synthesis = self.g_s\n"
        "        del self.g_s\n"
    )
    monkeypatch.chdir(tmp_path)
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    import theirs

    wanted = {
        "Grey": "g_a.0: reads 1 channels; images have 3",
        "Swish": "g_a.1: layers of type SiLU are not supported",
        "Four": "g_s.3: writes 4 channels; images have 3",
    }
    for name, said in wanted.items():
        path = checkpoint(tmp_path, getattr(theirs, name)(), name, lmbda=0.01)
        arguments = ["--checkpoint", str(path), "--calib", str(images), "-o", str(tmp_path / "m.licq"), *QUICK]
        assert said in failure(capsys, ["quantize", "--model", f"theirs:{name}", *arguments])
    path = checkpoint(tmp_path, hand_made(), "other", lmbda=0.01)
    arguments = ["--checkpoint", str(path), "--calib", str(images), "-o", str(tmp_path / "m.licq"), *QUICK]
    assert "has no part g_s" in failure(capsys, ["quantize", "--model", "theirs:NoSynthesis", *arguments])
    sys.modules.pop("theirs")


# --- MS-SSIM --------------------------------------------------------------------------------------------------


def test_what_lambda_weighs(tmp_path):
    path = checkpoint(tmp_path, small_model("mbt2018-mean"), lmbda=8.73)
    with pytest.raises(ModelError, match="--metric ms-ssim"):
        loss_of(path)
    assert loss_of(path, metric="ms-ssim") == (8.73, "ms-ssim")
    for card in ({"loss": "bpp + lmbda * (1 - MS-SSIM)"}, {"metric": "ms_ssim"}, {"metric": "ms-ssim"}):
        path = checkpoint(tmp_path, small_model("mbt2018-mean"), lmbda=8.73, **card)
        assert loss_of(path) == (8.73, "ms-ssim")
    with pytest.raises(ModelError, match="unknown metric"):
        loss_of(path, metric="psnr")
    path = checkpoint(tmp_path, small_model("mbt2018-mean"), lmbda=1.0, loss="bpp + lmbda * 255^2 * MSE")
    assert loss_of(path) == (1.0, "mse")


@pytest.mark.slow
@pytest.mark.long
def test_ms_ssim_from_quantize_to_evaluate(tmp_path, images, capsys):
    path = checkpoint(tmp_path, small_model("mbt2018-mean"), lmbda=8.73)
    common = ["quantize", "--checkpoint", str(path), "--calib", str(images), "-o", str(tmp_path / "m.licq"), *QUICK]
    assert "--metric ms-ssim" in failure(capsys, common)
    artifact = quantize(
        path, images, "--metric", "ms-ssim", "--method", "fmpq", "--max-bits", "3", "--budget", "bits=2.5"
    )
    assert artifact.provenance["metric"] == "ms-ssim"
    output = tmp_path / "results.json"
    arguments = ["evaluate", "--images", str(images), "--models", str(path.with_suffix(".licq")), "-o", str(output)]
    run([*arguments, "--reference", str(path), "--metric", "ms-ssim"])
    record = json.loads(output.read_text())
    for curve in [record["reference"], *record["curves"]]:
        for image in curve["points"][0]["images"]:
            assert image["rd_loss"] == pytest.approx(image["bpp"] + 8.73 * (1 - image["ms_ssim"]))
