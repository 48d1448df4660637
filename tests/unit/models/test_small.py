"""Small checkpoints: what they keep, how exactly, and what is refused."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from licquant.codec.files import container
from licquant.errors import ModelError
from licquant.models.small import KERNEL, MAGIC, VERSION, from_small, to_small
from tests.models_for_tests import small_hyperprior


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "kernel": torch.randn(16, 8, 3, 3, generator=generator) * torch.logspace(-6, 3, 16)[:, None, None, None],
        "matrix": torch.rand(32, 32, generator=generator),
        "bias": torch.randn(16, generator=generator),
        "few": torch.randn(2, 3, 3, 3, generator=generator),
        "scalar": torch.tensor(0.1),
        "table": torch.arange(10, dtype=torch.int32),
    }


def test_every_value_is_within_half_a_step_of_its_row(state):
    found = from_small(to_small(state))
    assert found.keys() == state.keys() - {"table"}
    for name, bits in (("kernel", 11), ("matrix", 16)):
        rows = state[name].flatten(1)
        step = rows.abs().amax(1) / (2 ** (bits - 1) - 1)
        assert found[name].shape == state[name].shape
        assert ((found[name].flatten(1) - rows).abs() <= step[:, None] * 0.5001).all()
        assert not torch.equal(found[name], state[name])
    for name in ("bias", "few", "scalar"):
        assert torch.equal(found[name], state[name])


def test_what_was_stored_is_stored_again_as_it_is(state):
    once = to_small(state)
    assert to_small(from_small(once)) == once


def test_a_row_of_zeros_stays_one():
    kernel = torch.ones(4, 512)
    kernel[1] = 0
    assert torch.equal(from_small(to_small({"w": kernel}))["w"], kernel)


def test_a_model_takes_less_than_12_bits_a_parameter():
    state = {key: value for key, value in small_hyperprior(64, 96).state_dict().items() if value.dim() == 4}
    count = sum(value.numel() for value in state.values() if value.numel() >= KERNEL)
    assert 8 * len(to_small(state)) < 12 * count


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ModelError, match="w has values that are not finite"):
        to_small({"w": torch.full((3,), value)})


def signed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def altered(data: bytes, old: bytes, new: bytes) -> bytes:
    """With another header, its length and the checksum right."""
    length = struct.unpack_from("<4sHI", data)[2]
    header, blobs = data[10 : 10 + length], data[10 + length : -32]
    assert old in header
    header = header.replace(old, new)
    return signed(struct.pack("<4sHI", b"LICW", 1, len(header)) + header + blobs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"shape":[16,8,3,3]', b'"shape":[16,8,3,4]', "packed integers"),
        (b'"shape":[16,8,3,3]', b'"shape":[16,8,-3,3]', "impossible shape"),
        (b'"shape":[16,8,3,3]', b'"shape":[65536,65536]', "impossible shape"),
        (b'"shape":[16,8,3,3]', b'"shape":[16384,8192]', "claim far more elements"),
        (b'"shape":[16]', b'"shape":[17]', "17 numbers in 64 bytes"),
        (b'"bits":11', b'"bits":99', "bits"),
        (b'"blob":', b'"blob":9', "blob"),
        (b'"bias"', b'""', "without a name"),
        (b'"tensors"', b'"tensor"', "tensors"),
    ],
)
def test_damage_behind_a_right_checksum_is_refused(state, old, new, message):
    with pytest.raises(ModelError, match=message):
        from_small(altered(to_small(state), old, new))


def test_any_other_damage_is_refused(state):
    data = to_small(state)
    random = np.random.default_rng(0)
    for n in (0, 3, 9, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelError):
            from_small(data[:n])
    for position in random.integers(0, len(data), 50):
        with pytest.raises(ModelError):
            from_small(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])


def test_products_that_are_not_finite_are_refused():
    """Integers times a scale that is a number, but too large a one for them."""
    data = to_small({"w": torch.full((8, 128), 1e30)})
    scale = np.float32(np.float32(1e30) / (2**15 - 1)).tobytes()
    content = data[:-32].replace(8 * scale, 8 * np.float32(1e38).tobytes())
    assert content != data[:-32]
    with pytest.raises(ModelError, match="numbers that are not finite"):
        from_small(signed(content))


def test_one_blob_stands_for_no_more_tensors_than_may_be():
    """A hundred bytes of header name a megabyte again; a thousand of them were a gigabyte."""
    count = 1 << 18
    tensors = {f"t{index}": {"shape": [count], "data": {"blob": 0}} for index in range(1000)}
    data = container.pack(MAGIC, VERSION, {"tensors": tensors}, [bytes(4 * count)])
    with pytest.raises(ModelError, match="claim far more elements"):
        from_small(data)
