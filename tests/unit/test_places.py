"""Where results go: asked before long work, and elsewhere if it fails all the same."""

import json
import os
import re
import resource
import signal
import tempfile
from pathlib import Path

import pytest

from licquant import pipeline
from licquant.codec.files.artifact import Artifact
from licquant.commands import app as cli
from licquant.config import check_lmbda
from licquant.errors import LicquantError, ModelError, PlanError
from licquant.images import check_places, utf8, write_result
from licquant.train.card import lmbda_of
from licquant.train.settings import RunOptions
from tests.models_for_tests import save_small_checkpoint
from tests.unit.train.small import write_images

BYTE = os.fsdecode(b"\xff")  # of a file name that is not UTF-8


def unusable(place: Path) -> dict[str, Path]:
    """Places that cannot be written, each in its way."""
    (place / "file").write_bytes(b"")
    (place / "folder.licq").mkdir(exist_ok=True)
    return {
        "no folder": place / "missing" / "m.licq",
        "a file for a folder": place / "file" / "m.licq",
        "a folder for a file": place / "folder.licq",
        "a device": Path("/dev/full"),
        "a name that is too long": place / f"{'n' * 252}.licq",
        "a name that no file has": place / "m\ud800.licq",
        "a name with a zero": place / "m\0.licq",
    }


KINDS = list(unusable(Path(tempfile.mkdtemp())))


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_is_known_before(kind, tmp_path):
    place = unusable(tmp_path)[kind]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LicquantError):
        check_places(place.with_name("good.licq"), place)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    check_places(tmp_path / "old", tmp_path / "new", tmp_path / f"new{BYTE}")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old", b"old")]


def test_a_disk_that_takes_nothing_is_known_before(tmp_path):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            check_places(tmp_path / "m.licq")
        except LicquantError:
            os._exit(0 if list(tmp_path.iterdir()) == [] else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a device"])  # root would put a file in its place
def test_a_result_that_cannot_be_saved_is_kept_and_the_message_says_where(kind, tmp_path, monkeypatch):
    (tmp_path / "rescue").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "rescue"))
    with pytest.raises(LicquantError) as caught:
        write_result(
            unusable(tmp_path)[kind].with_suffix(".licq" if "long" not in kind else ".l" + "n" * 250), b"result"
        )
    found = re.search(r"the result is kept as (\S+)$", str(caught.value))
    assert found
    assert Path(found[1]).read_bytes() == b"result"


def test_where_nothing_can_be_kept_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(LicquantError, match="nor could it be kept elsewhere"):
        write_result(tmp_path / "missing" / "m", b"result")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_small_checkpoint(tmp_path)
    write_images(tmp_path / "images", count=2)
    return tmp_path


def fails(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "that no" not in kind and "zero" not in kind])
@pytest.mark.parametrize("command", ["quantize", "finetune", "train", "profile", "evaluate"])
def test_commands_ask_before_they_work(command, kind, place, capsys, monkeypatch):
    monkeypatch.setattr("licquant.train.card.load_model", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr("licquant.train.command.make_fabric", lambda *_: pytest.fail("the work has begun"))
    model, images = ("--checkpoint", place / "c.pt"), place / "images"
    output = unusable(place)[kind]
    if command == "train" and kind == "no folder":
        pytest.skip("train makes it")
    words = {
        "quantize": (*model, "--calib", images, "--steps", 0),
        "finetune": (*model, "--calib", images, "--data", images),
        "train": ("--model", "bmshj2018-hyperprior", "--lmbda", 0.01, "--data", images),
        "profile": model,
        "evaluate": ("--images", images, "--models", place / "none.licq"),
    }[command]
    said = fails(capsys, command, *words, "-o", output)
    assert "none.licq" not in said


@pytest.mark.parametrize("command", ["quantize", "finetune"])
def test_what_is_written_beside_the_model_has_its_place_before_the_work(command, place, capsys, monkeypatch):
    monkeypatch.setattr("licquant.train.card.load_model", lambda *_: pytest.fail("the work has begun"))
    (place / "m-zeta.png").mkdir()
    words = ("--checkpoint", place / "c.pt", "--calib", place / "images", "-o", place / "m.licq")
    data = ("--data", place / "images") if command == "finetune" else ()
    assert "m-zeta.png" in fails(capsys, command, *words, *data)


def test_a_name_that_is_not_utf8_does_not_lose_the_model(place, capsys):
    output = place / f"m{BYTE}.licq"
    (place / "images").rename(place / f"images{BYTE}")
    words = ["--checkpoint", place / "c.pt", "--calib", place / f"images{BYTE}", "--steps", 0, "--licence", BYTE]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in ("quantize", *words, "-o", output, "--json")])
    assert not stop.value.code
    found = Artifact.from_bytes(output.read_bytes())
    assert found.licence == BYTE
    assert json.loads(utf8(capsys.readouterr().out))["output"] == str(output)


BAD = [-0.013, 0, 0.0, float("nan"), float("inf"), -float("inf"), 10**400, True, "0.013", None, [0.01]]


@pytest.mark.parametrize("value", BAD)
def test_a_lambda_is_a_finite_number_above_0(value, tmp_path):
    with pytest.raises(ModelError, match="must be a finite number above 0"):
        check_lmbda(value)
    if value is not None:
        with pytest.raises(ModelError):
            pipeline.Settings(lmbda=value)
        with pytest.raises(ModelError, match=r"λ = .*must be a finite number above 0"):
            lmbda_of(tmp_path / "other.pt", value)
    (tmp_path / "c.json").write_text(json.dumps({"lmbda": value}))
    with pytest.raises(ModelError, match=r"c.json: lmbda = "):
        lmbda_of(tmp_path / "c.pt")
    assert lmbda_of(tmp_path / "c.pt", 0.01) == 0.01
    assert lmbda_of(tmp_path / "other.pt") is None


@pytest.mark.parametrize("widths", [{"max_bits": 1}, {"max_bits": 17}, {"activation_bits": 1}, {"activation_bits": 17}])
def test_widths_out_of_range_are_refused_by_the_settings(widths):
    with pytest.raises(PlanError, match="from 2 to 16"):
        pipeline.Settings(**widths)


def test_companions_are_asked_too(tmp_path):
    (tmp_path / "m.json").mkdir()
    with pytest.raises(LicquantError, match=r"m\.json"):
        RunOptions(tmp_path, tmp_path / "m.licq").check_output()
