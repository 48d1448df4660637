"""What a command reports of widths it knows already: nothing is computed a second time to tell it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from licquant.codec.codec import load
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.commands import base as commands
from licquant.commands.model_choice import Codecs, encoder
from licquant.evaluate import codec_results
from licquant.evaluate.widths import Recording, chosen_widths
from licquant.images import PLAIN, write_image
from licquant.program.chain import Chain
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import dynamic_artifact


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the first stage of g_a and of g_s ran, and how often latents were decoded and written."""
    counts: Counter[str] = Counter()
    start, decode, written = Chain.start, GaussianCoder.decode, GaussianCoder._written

    def counted_start(chain, q):
        counts[chain.part.part.name] += 1
        return start(chain, q)

    def counted_decode(coder, *arguments):
        counts["decode"] += 1
        return decode(coder, *arguments)

    def counted_written(coder, *arguments):
        counts["written"] += 1
        return written(coder, *arguments)

    monkeypatch.setattr(Chain, "start", counted_start)
    monkeypatch.setattr(GaussianCoder, "decode", counted_decode)
    monkeypatch.setattr(GaussianCoder, "_written", counted_written)
    return counts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    dynamic_artifact().save(tmp_path / "m.licq")
    for number, image in enumerate(dead_leaves(2, 96, seed=1)):
        write_image(tmp_path / f"{number}.png", np.ascontiguousarray(image))
    return tmp_path


def test_encode_and_decode(place: Path, counts: Counter[str]) -> None:
    codec = load(place / "m.licq", threads=1)
    chosen = encoder(Codecs("openvino", 1), place / "m.licq", None, None, None)
    encoded = commands.encode(place / "0.png", chosen, place / "0.lic", PLAIN)
    assert counts == {"g_a": 1, "written": 1}
    counts.clear()
    decoded = commands.decode(place / "0.lic", lambda _: codec, place / "back.png", commands.Wanted())
    assert counts == {"g_s": 1, "decode": 1}
    told = {**encoded.record["widths"], **decoded.record["widths"]}
    assert set(told) == {"g_a.1", "g_a.2", "g_s.1", "g_s.2"}
    counts.clear()
    rgb = dead_leaves(1, 96, seed=1)[0]
    assert chosen_widths(load(place / "m.licq"), rgb) == told
    assert counts == {"g_a": 1, "written": 1}  # this selector of g_s reads its input


def test_evaluate(place: Path, counts: Counter[str]) -> None:
    codec = Recording(load(place / "m.licq", threads=1))
    codec_results.evaluate_codec(codec, [place / "0.png", place / "1.png"], 0.01)
    assert counts == {"g_a": 2, "g_s": 2, "decode": 2, "written": 2}
    assert codec.widths == [chosen_widths(codec.codec, rgb) for rgb in dead_leaves(2, 96, seed=1)]
