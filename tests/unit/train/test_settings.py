"""Recipes: what is refused, and that names and values come back as they went in."""

import json
from pathlib import Path

import pytest

from licquant.errors import TrainingError
from licquant.train.settings import MS_SSIM_CROP, Recipe, RunOptions
from tests.unit.train.small import RECIPE, recipe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lmbda", value) for value in (0.0, -0.01, float("nan"), float("inf"))],
        *[("steps", 0), ("batch", 0), ("N", 0), ("seed", -1), ("clip", 0.0), ("average", 1.0)],
        *[("crop", 0), ("crop", 100), ("large_from", 1.5), ("metric", "vmaf"), ("precision", "int8")],
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"^{name} = "):
        recipe(**{name: value})


def test_a_recipe_survives_json() -> None:
    assert Recipe.from_mapping(json.loads(json.dumps(RECIPE.to_mapping()))) == RECIPE


def test_whole_numbers_serve_as_fractions() -> None:
    made = Recipe.from_mapping({"model": "mbt2018-mean", "lmbda": 1})
    assert made == Recipe("mbt2018-mean", 1.0)
    assert isinstance(made.lmbda, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "a", "lmbda": 0.1, "lambda": 1}, "unknown setting 'lambda'"),
        ({"model": "a", "lmbda": "0.1"}, "lmbda = '0.1'"),
        ({"model": "a", "lmbda": 0.1, "steps": 10.5}, "steps = 10.5"),
        ({"model": "a", "lmbda": True}, "lmbda = True"),
        ({"model": "a"}, "needs lmbda"),
        ({}, "needs model and lmbda"),
    ],
)
def test_a_mapping_that_is_no_recipe_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Recipe.from_mapping(values)


def test_ms_ssim_takes_crops_that_it_can_measure() -> None:
    assert Recipe.from_mapping({"model": "a", "lmbda": 5, "metric": "ms-ssim"}).crop == MS_SSIM_CROP
    with pytest.raises(TrainingError, match="MS-SSIM needs"):
        Recipe.from_mapping({"model": "a", "lmbda": 5, "metric": "ms-ssim", "crop": 128})


@pytest.mark.parametrize("name", ["model", "model.json", "model.state", "model.csv"])
def test_a_checkpoint_is_not_named_like_its_companions(name: str) -> None:
    with pytest.raises(TrainingError, match="suffix"):
        RunOptions(Path("data"), Path(name)).check_output()


@pytest.mark.parametrize("changes", [{"devices": 0}, {"max_minutes": -1.0}, {"max_file_mib": float("nan")}])
def test_options_that_cannot_be_used_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        RunOptions(Path("data"), Path("model.pt"), **changes)
