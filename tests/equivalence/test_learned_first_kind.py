"""What is learned of models that few have: finetuning and dynamic widths with GDN of the first kind, and MS-SSIM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget
from licquant.dynamic import finetune as dynamic_module
from licquant.dynamic.finetune import finetune_dynamic
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import DataError
from licquant.quant.in_training.finetune_settings import Training
from licquant.quant.synthetic import dead_leaves
from licquant.train.progress import COMPLETE
from tests.models_for_tests import first_kind, small_hyperprior
from tests.unit.quant.test_finetune import options, recipe
from tests.unit.train.small import write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("learned") / "images", count=3, side=208)


def assert_codes_exactly(artifact: Artifact, unit: int = 1) -> None:
    """What is decoded is what was analysed, by the exact engine and, as a picture within `unit`, by OpenVINO's."""
    image = dead_leaves(1, 128, seed=5)[0]
    codecs = [Codec(Artifact.from_bytes(artifact.to_bytes()), bytes(8), engine) for engine in ("exact", "openvino")]
    data = codecs[0].encode(image)
    assert np.array_equal(codecs[0].analyse(image).y, codecs[0].decode_symbols(data).y)
    assert len(np.unique(codecs[0].decode_symbols(data).y)) > 2
    exact, fast = (codec.decode(data).astype(int) for codec in codecs)
    assert np.abs(exact - fast).mean() <= 0.05
    assert np.abs(exact - fast).max() <= unit


def finetuned(model: Any, chosen: Any, images: Path, output: Path, **settings: Any) -> Artifact:
    given = pipeline.Settings(**settings)
    result, outcome = pipeline.finetune(
        model, dead_leaves(1, 192), Training(chosen, options(images, output)), budget=Budget("bits", 6), settings=given
    )
    assert (outcome.status, outcome.steps) == (COMPLETE, chosen.steps)
    return result.artifact


@pytest.mark.slow
def test_finetuning_gdn_of_the_first_kind(images: Path, tmp_path: Path) -> None:
    chosen = recipe(steps=3, model="tests.models_for_tests:FirstKind", large_from=1.0, learning_rate=0.01)
    artifact = finetuned(first_kind(), chosen, images, tmp_path / "m.licq")
    assert_codes_exactly(artifact, unit=2)  # after three steps: one hidden value beside a boundary shows
    untrained = pipeline.quantize(first_kind(), dead_leaves(1, 192), budget=Budget("bits", 6)).artifact
    assert artifact.to_bytes()[-32:] != untrained.to_bytes()[-32:]


@pytest.mark.long
@pytest.mark.slow
def test_dynamic_widths_of_gdn_of_the_first_kind(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module, "SELECTOR_CROPS", 2)
    chosen = recipe(steps=2, model="tests.models_for_tests:FirstKind", large_from=1.0, batch=1)
    result, outcome = finetune_dynamic(
        first_kind(), dead_leaves(1, 64), Training(chosen, options(images, tmp_path / "m.licq")),
        DynamicSettings((6, 8), 1.0), pipeline.Settings(),
    )  # fmt: skip
    assert (outcome.status, outcome.steps) == (COMPLETE, 2)
    assert set(result.artifact.dynamic) == {"g_a", "g_s"}
    assert_codes_exactly(result.artifact, unit=4)  # a unit of 6 bits is 4 of 8: what falls beside a boundary shows


class TestMsSsim:
    LMBDA = 8.73

    def quantized(self, metric: str, steps: int) -> Artifact:
        settings = pipeline.Settings(lmbda=self.LMBDA if metric == "ms-ssim" else 0.01, metric=metric,
                                     reconstruction_steps=steps)  # fmt: skip
        budget = Budget("bits", 4)
        return pipeline.quantize(small_hyperprior(), dead_leaves(2, 192), budget=budget, settings=settings).artifact

    @pytest.mark.slow
    def test_reconstruction_minimises_it(self) -> None:
        """Other weights than without reconstruction, and than with the squared error."""
        found = [self.quantized("ms-ssim", 0), self.quantized("ms-ssim", 3), self.quantized("mse", 3)]
        assert len({artifact.to_bytes()[-32:] for artifact in found}) == 3
        assert_codes_exactly(found[1])

    def test_finetuning_minimises_it(self, images: Path, tmp_path: Path) -> None:
        chosen = recipe(steps=2, metric="ms-ssim", lmbda=self.LMBDA, crop=192, large_crop=192, batch=1)
        artifact = finetuned(
            small_hyperprior(), chosen, images, tmp_path / "m.licq", lmbda=self.LMBDA, metric="ms-ssim"
        )
        assert_codes_exactly(artifact, unit=2)  # untrained: one hidden value beside a boundary shows as two levels
        rows = [row.split(",") for row in (tmp_path / "m.csv").read_text().splitlines()[1:]]
        figures = [tuple(map(float, row[3:6])) for row in rows]
        for loss, rate, lost in figures:
            assert loss == pytest.approx(rate + self.LMBDA * lost, rel=1e-3)
            assert 0 < lost < 1

    def test_images_too_small_for_it_are_refused(self) -> None:
        settings = pipeline.Settings(lmbda=self.LMBDA, metric="ms-ssim", reconstruction_steps=1)
        with pytest.raises(DataError, match="192x192"):
            pipeline.quantize(small_hyperprior(), dead_leaves(2, 128), budget=Budget("bits", 4), settings=settings)
