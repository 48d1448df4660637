"""Crops: a function of (seed, step), shared among processes, from every image in turn."""

import numpy as np
import pytest
import torch

from licquant.errors import DataError
from licquant.images import write_image
from licquant.train.batches import Crops, ahead
from licquant.train.pixels import Pixels, open_pixels
from tests.unit.train.small import recipe


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    """Images whose samples say where they are: (row, column, number of the image)."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        rows, columns = np.mgrid[0 : 130 + number, 0:150]
        rgb = np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)
        write_image(folder / f"{number}.png", rgb)
    return open_pixels(folder, folder / "cache")


def test_a_crop_is_a_piece_of_an_image_perhaps_mirrored(pixels: Pixels) -> None:
    crops = Crops(pixels, recipe(steps=100))
    mirrored = set()
    for step in range(20):
        for crop in crops.batch(step).numpy():  # 3×64×64
            rows, columns, number = crop.astype(int)
            assert (number == number[0, 0]).all()
            assert (np.diff(rows, axis=0) == 1).all()
            assert (np.diff(rows, axis=1) == 0).all()
            direction = columns[0, 1] - columns[0, 0]
            assert (np.diff(columns, axis=1) == direction).all()
            mirrored.add(int(direction))
    assert mirrored == {1, -1}


def test_an_epoch_shows_every_image_once(pixels: Pixels) -> None:
    crops = Crops(pixels, recipe(steps=100, batch=3))
    shown = [int(crop[2, 0, 0]) for step in range(4) for crop in crops.batch(step)]
    assert sorted(shown[:6]) == sorted(shown[6:]) == list(range(6))
    assert shown[:6] != shown[6:]


def test_a_batch_depends_on_seed_and_step_alone(pixels: Pixels) -> None:
    one, again = Crops(pixels, recipe()), Crops(pixels, recipe())
    assert torch.equal(one.batch(5), again.batch(5))  # without the steps before
    assert not torch.equal(one.batch(5), one.batch(6))
    assert not torch.equal(one.batch(5), Crops(pixels, recipe(seed=1)).batch(5))


@pytest.mark.parametrize("step", [0, 11])  # small and large crops
def test_shares_of_several_processes_make_up_the_batch(pixels: Pixels, step: int) -> None:
    shares = [Crops(pixels, recipe(), rank, 2) for rank in range(2)]
    joined = torch.cat([share.batch(step) for share in shares])
    assert torch.equal(joined, Crops(pixels, recipe()).batch(step))
    assert [share.first_sample(step) for share in shares] == [0, len(joined) // 2]


def test_ahead_gives_the_steps_in_order(pixels: Pixels) -> None:
    crops = Crops(pixels, recipe())
    batches = dict(ahead(crops, 3, 12))
    assert list(batches) == list(range(3, 12))
    assert all(torch.equal(batch, crops.batch(step)) for step, batch in batches.items())
    assert list(ahead(crops, 12, 12)) == []


def test_the_layout_is_channels_last(pixels: Pixels) -> None:
    batch = Crops(pixels, recipe()).batch(0)
    assert batch.shape == (4, 3, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_images_smaller_than_a_crop_are_left_out(pixels: Pixels) -> None:
    crops = Crops(pixels, recipe(large_crop=128))
    assert crops.too_small() == {64: 0, 128: 0}
    with pytest.raises(DataError, match=r"as large as the 192x192 crops: 6 are readable but smaller"):
        Crops(pixels, recipe(large_crop=192))


def test_a_batch_that_cannot_be_shared_is_refused(pixels: Pixels) -> None:
    with pytest.raises(DataError, match="cannot be shared equally by 3"):
        Crops(pixels, recipe(), 0, 3)
