"""The coder in plain Python writes and reads constriction's words, and takes its place where that is missing."""

import os
import subprocess
import sys
from pathlib import Path

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licquant.codec.entropy import plain_ans
from licquant.codec.entropy.tables import apportion

STREAM = constriction.stream
ROOT = Path(__file__).parents[3]


def frequencies(rng: np.random.Generator) -> np.ndarray:
    """Of 2 to 500 slots, some of them as rare as a table allows."""
    weights = np.floor(rng.dirichlet(np.full(rng.integers(2, 500), 0.1)) * 2**40).astype(np.int64)
    return apportion(weights) / 65536


def models(rng: np.random.Generator) -> tuple[object, object, int]:
    """The same model of both coders, and how many slots it has."""
    if rng.random() < 0.3:
        size = 1 << int(rng.integers(1, 17))
        return STREAM.model.Uniform(size), plain_ans.Uniform(size), size
    p = frequencies(rng)
    return STREAM.model.Categorical(p, perfect=False), plain_ans.Categorical(p), p.size


def both(words: list[int]) -> list[object]:
    given = np.array(words, dtype=np.uint32)
    return [STREAM.stack.AnsCoder(given), plain_ans.AnsCoder(given)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_same_words_and_the_same_symbols(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theirs, ours = both([1 << 24])
    pushed = []
    for _ in range(rng.integers(1, 6)):
        their, our, size = models(rng)
        symbols = rng.integers(0, size, rng.integers(0, 300)).astype(np.int32)
        theirs.encode_reverse(symbols, their)
        ours.encode_reverse(symbols, our)
        pushed.append((symbols, their, our))
        assert theirs.pos() == ours.pos()
        assert theirs.get_compressed().tolist() == ours.get_compressed().tolist()
    theirs, ours = both(ours.get_compressed().tolist())
    for symbols, their, our in reversed(pushed):
        assert ours.decode(our, symbols.size).tolist() == symbols.tolist()
        assert theirs.decode(their, symbols.size).tolist() == symbols.tolist()
    assert theirs.pos() == ours.pos() == (0, 1 << 24)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_the_same_of_words_that_nobody_wrote(words: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    theirs, ours = both(words)
    for _ in range(4):
        their, our, _ = models(rng)
        found = ours.decode(our, 100)
        assert found.dtype == np.int32
        assert theirs.decode(their, 100).tolist() == found.tolist()
        assert theirs.pos() == ours.pos()


CODE = """
import hashlib, sys
if sys.argv[1] == "without":
    sys.modules["constriction"] = None  # cannot be imported
import licquant
from licquant.codec.entropy import ans, plain_ans
from licquant.quant.synthetic import dead_leaves
assert (ans.AnsCoder is plain_ans.AnsCoder) == (sys.argv[1] == "without")
for path in sys.argv[2:]:
    codec = licquant.load(path, engine="exact", threads=1)
    data = codec.encode(dead_leaves(1, 96, seed=1)[0] // 2)
    print(len(data), hashlib.sha256(data).hexdigest(), hashlib.sha256(codec.decode(data).tobytes()).hexdigest())
"""


def test_files_are_the_same_without_constriction(artifact_path: Path) -> None:
    """Weights are unpacked, images coded and decoded."""
    told = []
    for how in ("with", "without"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, how, str(artifact_path), str(ROOT / "tests/golden/dynamic.licq")],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == 2


def test_only_the_model_in_use_is_there() -> None:
    with pytest.raises(ValueError, match="perfect=False"):
        plain_ans.Categorical(np.array([0.5, 0.5]), perfect=True)
