"""Finetuning runs: what they leave, that they gain, stop, resume to the same bytes, and are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from licquant import pipeline
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget
from licquant.errors import BudgetError, TrainingError
from licquant.images import read_image
from licquant.quant.in_training.finetune import Finetuner, Task
from licquant.quant.in_training.finetune_settings import FinetuneRecipe, Training
from licquant.quant.rd import evaluate_quantized
from licquant.quant.synthetic import dead_leaves
from licquant.train import progress
from licquant.train.progress import COMPLETE, TIME_LIMIT
from licquant.train.settings import RunOptions
from licquant.train.stepper import Average
from tests.models_for_tests import small_hyperprior
from tests.unit.train.small import write_images

RECIPE = {
    **{"model": "bmshj2018-hyperprior", "lmbda": 0.01, "steps": 8, "batch": 2, "crop": 64, "large_batch": 1},
    **{"large_crop": 128, "warmup": 2, "log_every": 3},
}


def recipe(**changes: Any) -> FinetuneRecipe:
    return FinetuneRecipe.from_mapping({**RECIPE, **changes})


def options(images: Path, output: Path, **changes: Any) -> RunOptions:
    checkpoint = images.parent / "checkpoint.pt"
    checkpoint.write_bytes(b"only its hash is asked for")
    common: dict[str, Any] = {"accelerator": "cpu", "threads": 1, "cache": images.parent / "cache"}
    return RunOptions(images, output, init=checkpoint, **{**common, **changes})


def run(recipe: FinetuneRecipe, options: RunOptions, **changes: Any) -> tuple[pipeline.Result, pipeline.Outcome]:
    """Weights of 4 bits, activations of 6."""
    settings = pipeline.Settings(activation_bits=6, **changes)
    return pipeline.finetune(
        small_hyperprior(), dead_leaves(1, 64), Training(recipe, options), budget=Budget("bits", 4), settings=settings
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("finetune") / "images", count=3)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """An uninterrupted run: its artifact and its log."""
    output = tmp_path_factory.mktemp("whole") / "model.licq"
    result, outcome = run(recipe(), options(images, output))
    assert (outcome.status, outcome.steps) == (COMPLETE, 8)
    return result.artifact.to_bytes(), output.with_suffix(".csv").read_bytes()


def test_the_artifact_says_how_it_was_made(whole: tuple[bytes, bytes]) -> None:
    artifact = Artifact.from_bytes(whole[0])
    assert {bits.weight for bits in artifact.plan.values()} == {4}
    told = artifact.provenance
    assert (told["quantizer"], told["estimator"], told["steps"], told["lmbda"]) == ("dpa", "dgm", 8, 0.01)
    lines = whole[1].decode().splitlines()
    assert lines[0] == "step,learning_rate,crop,loss,bpp,distortion,quality_db,gradient"
    assert [line.split(",")[0] for line in lines[1:]] == ["3", "6", "8"]


@pytest.mark.slow
@pytest.mark.parametrize(("quantizer", "estimator"), [("dpa", "dgm"), ("lsq", "ste"), ("pams", "ste")])
def test_the_loss_falls(images: Path, tmp_path: Path, quantizer: str, estimator: str) -> None:
    changes = {"steps": 30, "learning_rate": 0.05, "bias_rate": 0.02, "grid_rate": 0.01, "average": 0.5}
    chosen = recipe(quantizer=quantizer, estimator=estimator, large_from=1.0, **changes)
    result, _ = run(chosen, options(images, tmp_path / "model.licq"))
    x = torch.from_numpy(read_image(images / "image0.png")[:128, :128].transpose(2, 0, 1).copy()).float()[None] / 255
    grids = pipeline.QuantizerSettings(per_channel=chosen.grids.per_channel)
    start = pipeline.quantize(
        small_hyperprior(), dead_leaves(1, 64), budget=Budget("bits", 4),
        settings=pipeline.Settings(activation_bits=6, quantizer=grids),
    )  # fmt: skip
    with torch.no_grad():
        before, after = (evaluate_quantized(found.quantized, x).loss(0.01) for found in (start, result))
    assert after < 0.9 * before


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_a_killed_run_resumes_to_the_same_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[bytes, bytes], steps: int
) -> None:
    class Killed(BaseException):
        pass

    advance = Finetuner.advance

    def counted(self: Finetuner, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.step == steps:
            raise Killed

    mine = options(images, tmp_path / "model.licq", checkpoint_minutes=0.0, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(Finetuner, "advance", counted)
        with pytest.raises(Killed):
            run(recipe(), mine)
    assert (tmp_path / "model.state").exists() == (steps > 1)
    result, outcome = run(recipe(), mine)
    assert outcome.status == COMPLETE
    assert result.artifact.to_bytes() == whole[0]
    assert (tmp_path / "model.csv").read_bytes() == whole[1]


def test_a_resumed_run_does_not_reconstruct_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reconstruction has learned is in the state, down to where the offsets start from."""
    whole, _ = run(recipe(steps=3), options(images, tmp_path / "whole.licq"), reconstruction_steps=2)
    mine = options(images, tmp_path / "model.licq", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Clock, "stop_reason", lambda _: TIME_LIMIT)
        stopped, outcome = run(recipe(steps=3), mine, reconstruction_steps=2)
    assert (outcome.status, outcome.steps) == (TIME_LIMIT, 1)
    assert Artifact.from_bytes(stopped.artifact.to_bytes()).provenance["steps"] == 1
    monkeypatch.setattr(pipeline, "fit", None)  # would fail
    resumed, _ = run(recipe(steps=3), mine, reconstruction_steps=2)
    assert resumed.artifact.to_bytes() == whole.artifact.to_bytes()


def test_another_recipe_does_not_resume_a_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = options(images, tmp_path / "model.licq", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Clock, "stop_reason", lambda _: TIME_LIMIT)
        run(recipe(), mine)
    with pytest.raises(TrainingError, match=r"started with beta = 2.0, not 3.0"):
        run(recipe(beta=3.0), mine)


def test_the_average_is_what_is_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an average that never moves, the calibrated model comes back, whatever the steps were."""
    monkeypatch.setattr(Average, "update", lambda self: None)
    result, _ = run(recipe(steps=3, learning_rate=0.1), options(images, tmp_path / "model.licq"))
    grids = pipeline.QuantizerSettings(free_zero_points=True)
    start = pipeline.quantize(
        small_hyperprior(), dead_leaves(1, 64), budget=Budget("bits", 4),
        settings=pipeline.Settings(activation_bits=6, quantizer=grids),
    )  # fmt: skip
    state = result.quantized.state_dict()
    assert state.keys() == start.quantized.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in start.quantized.state_dict().items())


def test_the_users_model_is_left_as_it_was(images: Path, tmp_path: Path) -> None:
    model = small_hyperprior()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pipeline.finetune(model, dead_leaves(1, 64), Training(recipe(steps=2), options(images, tmp_path / "model.licq")))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"quantizer": "lasq"}, "quantizer = 'lasq'"), ({"estimator": "x"}, "estimator"), ({"grid_rate": 0}, "grid_rate")],
)
def test_a_recipe_that_cannot_be_used_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        recipe(**change)


def test_a_recipe_survives_json() -> None:
    assert FinetuneRecipe.from_mapping(json.loads(json.dumps(recipe().to_mapping()))) == recipe()


# --- budgets of a file --------------------------------------------------------------------------------------

LIMIT = Budget("bytes", 42_000)  # between the files of 2 and of 6 bits


def within_bytes(mine: RunOptions, **changes: Any) -> tuple[pipeline.Result, pipeline.Outcome]:
    settings = pipeline.Settings(activation_bits=6, max_bits=6, **changes)
    training = Training(recipe(), mine)
    return pipeline.finetune(small_hyperprior(), dead_leaves(1, 64), training, budget=LIMIT, settings=settings)


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Files of trained models have 6,000 bytes more than was expected; the widths of each model that is trained."""
    trained: list[Any] = []
    train, told = pipeline.train_quantized, pipeline.Outcome.told

    def counted(task: Task, *arguments: Any, **named: Any) -> pipeline.Outcome:
        trained.append(task.decided)
        return train(task, *arguments, **named)

    monkeypatch.setattr(pipeline, "train_quantized", counted)
    monkeypatch.setattr(pipeline.Outcome, "told", lambda *arguments: {**told(*arguments), "more": "x" * 6_000})
    return trained


@pytest.mark.slow
def test_after_a_miss_a_smaller_plan_is_trained_from_the_start(images: Path, tmp_path: Path, longer: list[Any]) -> None:
    mine = options(images, tmp_path / "model.licq")
    result, outcome = within_bytes(mine)
    assert (outcome.status, outcome.steps) == (COMPLETE, 8)
    assert len(longer) == len({json.dumps(plan) for plan in longer}) > 1
    assert result.plan.to_json() == longer[-1]
    assert result.size is not None
    assert result.size.written == len(result.artifact.to_bytes()) <= LIMIT.value
    # The log is that of the last training alone.
    lines = (tmp_path / "model.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["3", "6", "8"]
    alone, _ = within_bytes(options(images, tmp_path / "alone.licq"), plan=result.plan)
    assert alone.artifact.to_bytes() == result.artifact.to_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 8 + 3])
def test_killed_before_or_after_a_miss_it_goes_on_to_the_same_bytes(
    images: Path, tmp_path: Path, longer: list[Any], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole, _ = within_bytes(options(images, tmp_path / "whole.licq"))
    trainings, left = list(longer), steps

    class Killed(BaseException):
        pass

    advance = Finetuner.advance

    def counted(self: Finetuner, *arguments: Any) -> None:
        nonlocal left
        advance(self, *arguments)
        left -= 1
        if not left:
            raise Killed

    mine = options(images, tmp_path / "model.licq", checkpoint_minutes=0.0, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(Finetuner, "advance", counted)
        with pytest.raises(Killed):
            within_bytes(mine)
    del longer[:]
    result, _ = within_bytes(mine)
    assert longer == (trainings if steps < 8 else trainings[1:])
    assert result.artifact.to_bytes() == whole.artifact.to_bytes()
    assert (tmp_path / "model.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
def test_an_early_stop_whose_file_is_too_large_keeps_its_state(
    images: Path, tmp_path: Path, longer: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = options(images, tmp_path / "model.licq", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Clock, "stop_reason", lambda _: TIME_LIMIT)
        with pytest.raises(BudgetError, match=r"would have [\d,]+ bytes, more than the budget of 42,000"):
            within_bytes(mine)
    assert (tmp_path / "model.state").exists()
    result, outcome = within_bytes(mine)
    assert outcome.status == COMPLETE
    assert result.size is not None
    assert result.size.written <= LIMIT.value
