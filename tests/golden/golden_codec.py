"""The inputs of the golden files, made from integers alone so that they are the same everywhere."""

import numpy as np

from licquant.codec.entropy.coder import encode_symbols
from licquant.codec.entropy.tables import CodingTables, apportion
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.weights import pack_integers


def tables() -> CodingTables:
    """Four two-sided tables of 3, 9, 41 and 301 symbols whose frequencies fall off as 1 / (1 + d^2 / w)."""
    frequencies, radii = [], [1, 4, 20, 150]
    for radius in radii:
        d = np.arange(-radius, radius + 1)
        frequencies.append(apportion(np.append(10**6 * radius // (radius + 4 * d * d), 30)))
    return CodingTables(np.concatenate(frequencies), 2 * np.array(radii) + 1, -np.array(radii))


def symbols() -> tuple[np.ndarray, np.ndarray]:
    """3000 symbols and their tables from a linear congruential generator; some are escapes."""
    state, draws = 12345, []
    for _ in range(3000):
        state = (1664525 * state + 1013904223) % 2**32
        draws.append(state >> 8)
    draw = np.array(draws)
    index = (draw % 4).astype(np.uint8)
    values = (draw // 4 % 64 - 32) * np.array([1, 4, 20, 150])[index] // 30
    values[::211] *= 1000
    values[:2] = -(2**31), 2**31 - 1
    return values.astype(np.int32), index


def weights() -> np.ndarray:
    """int32[12, 25, 9] in -127..127, with rows of different spread."""
    values, _ = symbols()
    grid = np.resize(values[100:], (12, 25, 9)) % 64 - 32
    return np.clip(grid * (1 + np.arange(12))[:, None, None] // 4, -127, 127).astype(np.int32)


def make() -> dict[str, bytes]:
    """File name to bytes."""
    values, index = symbols()
    payload = encode_symbols(values, index, tables())
    return {
        "payload.bin": payload,
        "tables.bin": tables().to_bytes(),
        "weights.bin": pack_integers(weights(), 8),
        "container.lic": Bitstream(bytes(range(8)), 768, 512, (payload[:100], b"", b"\0")).to_bytes(),
    }
