"""Finetuning of a network whose widths are chosen: what its artifact does, and that it resumes exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from licquant import pipeline
from licquant.allocate.search import Search
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.dynamic import finetune as module
from licquant.dynamic import objective as dynamic_objective
from licquant.dynamic.finetune import finetune_dynamic, stage_cost
from licquant.dynamic.objective import AdaptiveModel
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import BudgetError, ModelError, TrainingError
from licquant.evaluate.widths import chosen_widths
from licquant.images import read_image
from licquant.quant.in_training.finetune import Finetuner
from licquant.quant.in_training.finetune_settings import FinetuneRecipe, Training
from licquant.quant.synthetic import dead_leaves
from licquant.train.progress import COMPLETE
from licquant.train.settings import RunOptions
from tests.models_for_tests import small_hyperprior
from tests.unit.allocate.test_costs import table_for
from tests.unit.quant.test_finetune import options, recipe
from tests.unit.train.small import write_images

WIDTHS = (4, 6, 8)
STAGES = ["g_a.2", "g_a.4", "g_a.6", "g_s.2", "g_s.4", "g_s.6"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("dynamic") / "images", count=3)


@pytest.fixture(autouse=True)
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SELECTOR_CROPS", 2)


def run(
    recipe: FinetuneRecipe, options: RunOptions, dynamic: DynamicSettings, **settings: Any
) -> tuple[pipeline.Result, pipeline.Outcome]:
    chosen = pipeline.Settings(**settings)
    return finetune_dynamic(small_hyperprior(), dead_leaves(1, 64), Training(recipe, options), dynamic, chosen)


@pytest.mark.slow
def test_a_price_on_bits_is_obeyed_and_the_codec_chooses_as_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower, adaptive = module.lowered_dynamic, list[AdaptiveModel]()
    monkeypatch.setattr(
        module, "lowered_dynamic", lambda model, *rest: (adaptive.append(model), lower(model, *rest))[1]
    )
    chosen = recipe(steps=10, lmbda=1.0, learning_rate=0.05, average=0.5, warmup=0, batch=1, large_from=1.0)
    codecs = []
    for gamma in (0.0, 5000.0):
        result, outcome = run(chosen, options(images, tmp_path / f"{gamma}.licq"), DynamicSettings((4, 8), gamma))
        assert (outcome.status, outcome.steps) == (COMPLETE, 10)
        told = result.artifact.provenance
        assert (told["widths"], told["gamma"], told["bit_cost"]) == ([4, 8], gamma, "layers")
        codecs.append(Codec(Artifact.from_bytes(result.artifact.to_bytes()), bytes(8), "exact"))
    rgb = np.ascontiguousarray(read_image(images / "image0.png")[:128, :128])
    free, dear = (chosen_widths(codec, rgb) for codec in codecs)
    assert list(free) == list(dear) == STAGES
    assert sum(dear.values()) <= sum(free.values()) - 8
    for codec, model in zip(codecs, adaptive, strict=True):
        x = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float()[None] / 255
        assert model.widths(x) == [chosen_widths(codec, rgb)]
        assert codec.decode(codec.encode(rgb)).shape == rgb.shape


@pytest.mark.parametrize(
    ("priced", "killed_at"),
    [
        pytest.param({"gamma": 1.0}, 2, marks=[pytest.mark.slow, pytest.mark.long]),
        ({"average_bits": 5.0}, 4),
    ],  # within the two steps whose widths are sampled, and after them
    ids=["gamma", "average_bits"],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    priced: dict[str, float],
    killed_at: int,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Selectors, the temperature's steps, the price of a bit and what reconstruction learned included."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(dynamic_objective, "SAMPLING", 0.4)
    dynamic, chosen = DynamicSettings(WIDTHS, **priced), recipe(steps=5, learning_rate=0.1)
    whole, _ = run(chosen, options(images, tmp_path / "whole.licq"), dynamic, reconstruction_steps=2)
    advance = Finetuner.advance

    def counted(self: Finetuner, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.step == killed_at:
            raise Killed

    mine = options(images, tmp_path / "model.licq", checkpoint_minutes=0.0, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(Finetuner, "advance", counted)
        with pytest.raises(Killed):
            run(chosen, mine, dynamic, reconstruction_steps=2)
    others = ((DynamicSettings(WIDTHS, 2.0), "gamma"), (DynamicSettings((4, 8), **priced), "widths"))
    for other, message in others if "gamma" in priced else others[1:]:
        with pytest.raises(TrainingError, match=f"started with {message} ="):
            run(chosen, mine, other, reconstruction_steps=2)
    monkeypatch.setattr(module, "fit", None)  # would fail
    monkeypatch.setattr(module, "centre_weights", lambda *_: pytest.fail("the weights are in the state"))
    fits, fit = [], module.fit_to_losses
    monkeypatch.setattr(module, "fit_to_losses", lambda *given: (fits.append(given), fit(*given)))
    resumed, outcome = run(chosen, mine, dynamic, reconstruction_steps=2)
    assert outcome.status == COMPLETE
    assert resumed.artifact.to_bytes() == whole.artifact.to_bytes()
    assert len(fits) == 1  # the last; what was fitted before is in the state
    assert len(fits[0][1]) == 2  # to all crops
    assert (tmp_path / "model.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_shared_weights_move_in_steps_of_the_widths_that_crops_want(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(BaseException):
        pass

    def task(*given: Any) -> None:
        raise Begun(given[0], given[-1])

    wanted = {"g_a.4": 6.5}
    monkeypatch.setattr(module, "centre_weights", lambda nested, *_: (nested(), wanted))
    monkeypatch.setattr(module, "dynamic_task", task)
    with pytest.raises(Begun) as begun:
        run(recipe(), options(images, tmp_path / "m.licq"), DynamicSettings(WIDTHS, average_bits=6.6))
    network, typical_bits = begun.value.args
    assert network.candidates == dict.fromkeys(STAGES, WIDTHS)
    assert typical_bits is wanted


def test_the_cost_of_a_bit_is_what_was_asked_for(images: Path) -> None:
    start = pipeline.quantize(small_hyperprior(), dead_leaves(1, 64))
    pictures = dead_leaves(1, 64)

    def cost(name: str, **settings: Any) -> list[float]:
        dynamic = DynamicSettings(WIDTHS, bit_cost=name)
        found = stage_cost(
            dynamic, Search(start.quantized.traced, pictures, start.statistics, pipeline.Settings(**settings))
        )
        return [found(["g_a.2", "g_a.3"], bits) for bits in WIDTHS]

    assert cost("layers") == [8, 12, 16]
    squares = cost("bops")
    assert squares[2] / squares[0] == pytest.approx(4)
    sizes = cost("bytes")
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    times = cost("latency", latency=table_for(start.quantized.traced))
    assert times[0] == times[2] > 0  # all have INT8 kernels
    with pytest.raises(BudgetError, match="licquant profile"):
        cost("latency")


def test_settings() -> None:
    assert DynamicSettings((8, 4, 4)) == DynamicSettings((4, 8))
    for widths in ((8,), (8, 8), (1, 8), (8, 17)):
        with pytest.raises(ModelError, match="candidate widths"):
            DynamicSettings(widths)
    for gamma in (-0.1, float("nan"), float("inf")):
        with pytest.raises(TrainingError, match="gamma"):
            DynamicSettings(WIDTHS, gamma)
    for average in (3.9, 8.1, float("nan")):
        with pytest.raises(TrainingError, match="average_bits"):
            DynamicSettings(WIDTHS, average_bits=average)
    with pytest.raises(TrainingError, match="one of them"):
        DynamicSettings(WIDTHS, 1.0, 6.0)
    assert DynamicSettings((4, 6, 8, 10)).target == 7
    assert DynamicSettings(WIDTHS, average_bits=4.5).target == 4.5
    assert DynamicSettings(WIDTHS, 0.0).target is None
    with pytest.raises(TrainingError, match="bit_cost"):
        DynamicSettings(WIDTHS, bit_cost="x")
