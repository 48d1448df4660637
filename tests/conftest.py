"""Fixtures that several tests share: one small artifact, made once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from licquant import pipeline
from licquant.codec.codec import Codec, load
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep does not go to the user's cache, and is not found there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LICQUANT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scale hyperprior, quantized to 8 bits."""
    path = tmp_path_factory.mktemp("artifact") / "model.licq"
    pipeline.quantize(small_hyperprior(), dead_leaves(2, 128), provenance={"lmbda": 0.01}).artifact.save(path)
    return path


@pytest.fixture(scope="session")
def hand_made_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "hand-made.licq"
    pipeline.quantize(hand_made(), dead_leaves(2, 128)).artifact.save(path)
    return path


@pytest.fixture(scope="session")
def codec(artifact_path: Path) -> Codec:
    return load(artifact_path, threads=1)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """uint8 96×130×3: no multiple of any stride."""
    return np.ascontiguousarray(dead_leaves(1, 130, seed=5)[0][:96])
