"""Which images are measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licquant.images import evenly
from licquant.models.trace import trace_model
from licquant.quant import calibrate as module
from licquant.quant.calibrate import RARE, calibrate, collect_statistics
from licquant.quant.colours import EVERY, strongly_coloured
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior


@given(st.integers(1, 70), st.integers(0, 300))
def test_as_many_as_asked_for_in_order_and_evenly_spaced(count, there):
    chosen = list(evenly(range(there), count))
    assert len(chosen) == min(count, there)
    gaps = np.diff([*chosen, there])  # the last one stands for what follows it too
    assert not chosen or chosen[0] == 0
    assert not chosen or gaps.max() - gaps.min() <= 1
    assert there > count or chosen == list(range(there))


@pytest.mark.parametrize("there", [63, 64, 65, 127, 128, 129])
def test_of_more_than_64_calibration_images_64_are_measured(there, monkeypatch):
    measured = []
    monkeypatch.setattr(module, "collect_statistics", lambda traced, images, on_image, rare: measured.extend(images))
    monkeypatch.setattr(module, "coloured_copies", lambda images: [])
    images = dead_leaves(1, 64) * there
    calibrate(small_hyperprior(), images)
    assert len(measured) == min(there, 64)


@pytest.mark.parametrize("there", [1, 4, 64, 65])
def test_a_coloured_copy_of_every_third_image_is_measured_too(there, monkeypatch):
    measured = []
    keep = lambda traced, images, on_image, rare: measured.extend((list(images), list(rare)))  # noqa: E731
    monkeypatch.setattr(module, "collect_statistics", keep)
    images = dead_leaves(there, 64)
    calibrate(small_hyperprior(), images)
    photographs, copies = measured
    plain = list(evenly(images, 64))
    assert all(a is b for a, b in zip(photographs, plain, strict=True))
    assert len(copies) == -(-len(plain) // EVERY)
    assert np.array_equal(copies[0], strongly_coloured(images[0], 0))


def test_rare_images_count_little_but_their_extremes_count(monkeypatch):
    traced, (dark, light) = (
        trace_model(small_hyperprior()),
        (np.full((64, 64, 3), grey, np.uint8) for grey in (10, 250)),
    )
    found = collect_statistics(traced, [dark], rare=[light])["g_a.input"]
    assert found.high.tolist() == pytest.approx([250 / 255] * 3)
    assert found.counts.sum(1).tolist() == [64 * 64 * (1 + RARE)] * 3
    assert found.counts[:, -1].tolist() == [64 * 64 * RARE] * 3
    monkeypatch.setattr(module, "RARE", 1)
    equal = collect_statistics(traced, [dark], rare=[light])["g_a.input"]
    both = collect_statistics(traced, [dark, light])["g_a.input"]
    assert equal.counts.tolist() == both.counts.tolist()
