"""Whole runs: what they leave, how they stop, resume and are refused, and that the last state survives."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from licquant.errors import DataError, LicquantError, ModelError, TrainingError
from licquant.images import places, write_image
from licquant.models.load import read_state
from licquant.train import architectures, progress, trainer
from licquant.train.command import run_training
from licquant.train.progress import COMPLETE, INTERRUPTED, TIME_LIMIT
from tests.unit.train.small import options, recipe, write_images


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run, with its images and cache."""
    place = tmp_path_factory.mktemp("whole")
    result = run_training(recipe(), options(place, test_images=write_images(place / "test", 1)))
    assert result.status == COMPLETE
    return place


def beside(whole: Path, place: Path, **changes: Any) -> Any:
    """Options with the images and cache of ``whole``, and an output under ``place``."""
    return options(whole, output=place / "model.pt", **changes)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, how: Any) -> None:
    """Call ``how`` when ``steps`` steps were taken."""
    advance = trainer.Trainer.advance

    def counted(self: trainer.Trainer, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.step == steps:
            how()

    monkeypatch.setattr(trainer.Trainer, "advance", counted)


def assert_same_result(one: Path, other: Path) -> None:
    for suffix in (".pt", ".csv"):
        assert one.with_suffix(suffix).read_bytes() == other.with_suffix(suffix).read_bytes()


# --- what a run leaves --------------------------------------------------------------------------------------


def test_a_run_leaves_checkpoint_card_log_and_picture(whole: Path) -> None:
    out = whole / "out"
    assert sorted(path.name for path in out.iterdir()) == ["model.csv", "model.json", "model.png", "model.pt"]
    assert Image.open(out / "model.png").size == (1000, 320)
    lines = (out / "model.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "5", "10", "12"]
    card = json.loads((out / "model.json").read_text())
    assert (card["model"], card["N"], card["M"], card["lmbda"], card["steps"]) == (
        recipe().model,
        8,
        12,
        0.01,
        12,
    )
    assert card["complete"]
    assert card["data"] == "images (5 images)"
    assert card["init"] == "scratch"
    assert card["test"]["images"] == "test"
    j = card["test"]["bpp_real_strings"] + 0.01 * 255**2 * 10 ** (-card["test"]["psnr_mean"] / 10)
    assert card["test"]["rd_loss"] == pytest.approx(j, rel=1e-3)
    assert str(whole) not in (out / "model.json").read_text()


def test_training_lowers_the_loss(whole: Path, tmp_path: Path) -> None:
    run_training(recipe(steps=60, learning_rate=3e-3, log_every=10), beside(whole, tmp_path))
    rows = (tmp_path / "model.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[3]) for row in rows]
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_run_again_gives_the_same_files(whole: Path, tmp_path: Path) -> None:
    run_training(recipe(), beside(whole, tmp_path))
    assert_same_result(tmp_path / "model.pt", whole / "out" / "model.pt")


def test_a_run_can_start_from_a_checkpoint_in_shards(whole: Path, tmp_path: Path) -> None:
    first = options(whole, output=tmp_path / "first.licw", max_file_mib=0.8)
    run_training(recipe(steps=2), first)
    assert len(list(tmp_path.glob("first-*of*.licw"))) > 1
    warm = recipe(lmbda=0.02, N=None, M=None, steps=2, learning_rate=1e-12)
    places = {"init": tmp_path / "first.licw", "validation_images": whole / "test"}
    result = run_training(warm, beside(whole, tmp_path, **places))
    validation = result.card["validation"]
    assert validation["images"] == "test"
    assert validation["init_rd_loss"] == pytest.approx(validation["rd_loss"], rel=1e-3)  # λ is the new one in both
    assert (result.card["N"], result.card["M"], result.card["init"]) == (8, 12, "lambda 0.01")
    before = read_state(tmp_path / "first.licw")
    after = read_state(tmp_path / "model.pt")
    torch.testing.assert_close(after["g_a.2.weight"], before["g_a.2.weight"])


def test_a_run_can_start_from_the_parts_of_another_model(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean = recipe(model="mbt2018-mean", N=None, M=None, steps=2, learning_rate=1e-12)
    places = {"init": whole / "out" / "model.pt", "validation_images": whole / "test"}
    card = run_training(mean, beside(whole, tmp_path, **places)).card
    assert "model.pt: entropy_bottleneck, g_a, g_s, h_a; new: h_s" in capsys.readouterr().err
    assert (card["N"], card["M"], card["init_parts"]) == (8, 12, ["entropy_bottleneck", "g_a", "g_s", "h_a"])
    assert card["validation"]["init_rd_loss"] == pytest.approx(
        json.loads((whole / "out" / "model.json").read_text())["test"]["rd_loss"]
    )  # that of the other model, on the same images
    before, after = read_state(whole / "out" / "model.pt"), read_state(tmp_path / "model.pt")
    torch.testing.assert_close(after["g_a.2.weight"], before["g_a.2.weight"])


# --- stopped and resumed ------------------------------------------------------------------------------------


# Inside and between rows of the log, with crops of both sizes, and after the last step.
@pytest.mark.parametrize("steps", [1, 7, 9, 12])
def test_a_killed_run_resumes_to_the_same_result(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    mine = beside(whole, tmp_path, checkpoint_minutes=0.0, resume=True)
    with monkeypatch.context() as patch:
        stop_after(patch, steps, kill)
        with pytest.raises(Killed):
            run_training(recipe(), mine)
    assert (tmp_path / "model.state").exists() == (steps > 1)
    assert run_training(recipe(), mine).status == COMPLETE
    assert_same_result(tmp_path / "model.pt", whole / "out" / "model.pt")
    assert not (tmp_path / "model.state").exists()


def test_at_the_time_limit_there_is_a_usable_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(progress.Clock, "stop_reason", lambda _: TIME_LIMIT)
        result = run_training(recipe(), beside(whole, tmp_path, max_minutes=1.0))
    assert (result.status, result.card["steps"], result.card["complete"]) == (TIME_LIMIT, 1, False)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    architectures.build("bmshj2018-hyperprior", {"N": 8, "M": 12}).load_state_dict(state)
    assert run_training(recipe(), beside(whole, tmp_path, resume=True)).status == COMPLETE
    assert_same_result(tmp_path / "model.pt", whole / "out" / "model.pt")


def test_a_signal_stops_after_the_step(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 4, lambda: os.kill(os.getpid(), 15))
    result = run_training(recipe(), beside(whole, tmp_path))
    assert (result.status, result.card["steps"]) == (INTERRUPTED, 4)


def test_a_complete_run_is_not_repeated(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.Trainer, "__init__", None)  # would fail
    assert run_training(recipe(), options(whole, resume=True)).card["complete"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmbda": 0.02}, "lmbda = 0.01, not 0.02"),
        ({"steps": 13}, "steps = 12, not 13"),
        ({"N": 9}, "N = 8, not 9"),
    ],
)
def test_another_recipe_does_not_resume_a_run(whole: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run_training(recipe(**change), options(whole, resume=True))


def test_other_images_do_not_resume_a_run(whole: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=3)
    with pytest.raises(TrainingError, match="other training images"):
        run_training(recipe(), options(tmp_path, output=whole / "out" / "model.pt", resume=True))


def test_an_output_that_exists_is_not_overwritten(whole: Path) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        run_training(recipe(), options(whole))


# --- trouble ------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_last_state(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = beside(whole, tmp_path, checkpoint_minutes=0.0, resume=True)
    aside = places.written_aside

    @contextmanager
    def full(path: Path) -> Iterator[Any]:
        with aside(path) as file:
            yield SimpleNamespace(write=lambda data: file.write(some(data)))

    def some(data: bytes) -> bytes:
        if len(data) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return data

    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: patch.setattr(places, "written_aside", full))
        with pytest.raises(TrainingError, match="No space left on device"):
            run_training(recipe(), mine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.csv", "model.state"]
    assert torch.load(tmp_path / "model.state", weights_only=True)["trainer"]["step"] == 5
    run_training(recipe(), mine)
    assert_same_result(tmp_path / "model.pt", whole / "out" / "model.pt")


def test_a_loss_that_is_not_finite_keeps_the_last_state(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = beside(whole, tmp_path, checkpoint_minutes=0.0)
    advance = trainer.Trainer.advance

    def poisoned(self: trainer.Trainer, *arguments: Any) -> None:
        if self.step == 6:
            self.model.g_a[0].weight.data.fill_(float("nan"))
        advance(self, *arguments)

    monkeypatch.setattr(trainer.Trainer, "advance", poisoned)
    with pytest.raises(TrainingError, match=r"not a number before step 7; lower the learning rate"):
        run_training(recipe(), mine)
    assert torch.load(tmp_path / "model.state", weights_only=True)["trainer"]["step"] == 6
    assert not (tmp_path / "model.pt").exists()


def test_a_damaged_state_is_said(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "model.state").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="not a training state"):
        run_training(recipe(), beside(whole, tmp_path, resume=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "vgg"}, ModelError, "unknown model 'vgg'"),
        ({"large_crop": 192}, DataError, "as large as the 192x192"),
    ],
)
def test_a_run_that_cannot_work_leaves_nothing(
    whole: Path, tmp_path: Path, change: dict[str, Any], error: type[LicquantError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_training(recipe(**change), beside(whole, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_test_images_are_looked_for_before_training(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        run_training(recipe(), beside(whole, tmp_path, test_images=tmp_path / "nowhere"))


def test_skipped_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = options(tmp_path)
    (mine.data / "broken.jpg").write_bytes(b"no image")
    write_image(mine.data / "tiny.png", torch.zeros(10, 10, 3, dtype=torch.uint8).numpy())
    run_training(recipe(steps=1), mine)
    said = capsys.readouterr().err
    assert "6 training images; 1 skipped: cannot be read; 1 skipped for 64x64 crops: smaller" in said
