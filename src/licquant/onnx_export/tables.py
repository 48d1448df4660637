"""``tables.json``: what a codec on these models needs beside them. Integers and names only."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from licquant.codec.entropy.ans import TOTAL_BITS
from licquant.codec.entropy.tables import ESCAPE_CLASSES, CodingTables
from licquant.codec.latents.factorized import FactorizedCoder
from licquant.codec.latents.families import LatentCoder
from licquant.codec.latents.hyperprior import GaussianCoder, HyperpriorCoder, MeanScaleCoder
from licquant.onnx_export.contexts import order_record, spatial_contexts
from licquant.program.part import Part, Program

FORMAT = 3
CHECKED = 2, 3  # positions of z
SLOTS = 1 << 24


def tables_record(
    about: Mapping[str, str], strides: tuple[int, int], program: Program, coder: LatentCoder
) -> dict[str, Any]:
    """The file's content; ``docs/onnx.md`` says what each key means. strides: pixels per element of y, and of z."""
    record: dict[str, Any] = {
        "format": FORMAT,
        **about,
        "stride": strides[1],
        "analysis": _analysis(program, strides),
        "synthesis": _synthesis(program["g_s"], strides[0]),
    }
    if isinstance(coder, FactorizedCoder):
        return {**record, "tables": {"y": _tables(coder.latent.tables)}}
    if contexts := spatial_contexts(coder):
        record["order"] = order_record(contexts)
    quantizer = coder.quantizer
    bits = {"y": quantizer.latent_bits, "y_hat": quantizer.output_bits}
    tables = {"z": _tables(coder.tables.z), "y": _tables(coder.tables.y)}
    return {**record, "fraction_bits": bits, "check": _check(coder), "tables": tables}


def _analysis(program: Program, strides: tuple[int, int]) -> dict[str, int]:
    """What coding a picture in pieces takes: how many coded positions around a piece what is coded depends on."""
    first, last = 0, strides[1] // strides[0] - 1
    if "h_a" in program:
        low, high = program["h_a"].receptive_field(0, 0)
        first, last = min(first, low), max(last, high)
    low, high = program["g_a"].receptive_field(first, last)
    return {"margin": max(-(low // strides[1]), high // strides[1], 0)}


def _synthesis(g_s: Part, stride: int) -> dict[str, int]:
    """What computing a picture in pieces takes: how many positions of y around a piece its pixels depend on."""
    low, high = g_s.receptive_field(0, stride - 1)
    return {"channels": g_s.input_grid.channels, "stride": stride, "margin": max(-low, high, 0)}


def _check(coder: GaussianCoder) -> dict[str, Any]:
    """What ``hyper`` has to give for known symbols: CRC-32 of all its outputs, one after another, as int32."""
    c, row, column = np.indices((len(coder.tables.z), *CHECKED))
    z = (7 * c + 5 * row + 3 * column) % 11 - 5
    parameters = coder.synthesise_hyper(coder.hyper.restore(z))
    outputs = [parameters]
    if isinstance(coder, MeanScaleCoder):
        sigma, mean = np.split(parameters, 2)
        outputs = [coder.tables.level(sigma), np.asarray(coder.quantizer.mean(mean))]
    elif isinstance(coder, HyperpriorCoder):
        outputs = [coder.tables.level(parameters), np.zeros_like(parameters)]
    content = b"".join(output.astype("<i4").tobytes() for output in outputs)
    return {"z_symbols": [z.tolist()], "crc32": zlib.crc32(content)}


def _tables(tables: CodingTables) -> dict[str, Any]:
    ends = np.cumsum(tables.lengths.astype(np.int64) + 1)
    starts = [_starts(frequencies) for frequencies in np.split(tables.frequencies, ends[:-1])]
    first, end = tables.offsets.tolist(), (tables.offsets + tables.lengths.astype(np.int64)).tolist()
    return {"offsets": first, "ends": end, "starts": starts, "escapes": _starts(ESCAPE_CLASSES)}


def _starts(frequencies: np.ndarray) -> list[int]:
    """Where each slot of a model begins in the coder's [0, 2^24), and 2^24 (``docs/formats.md``, "The ANS stack")."""
    count, before = len(frequencies), np.cumsum(frequencies, dtype=np.int64) - frequencies
    return [*(((before * (SLOTS - count)) >> TOTAL_BITS) + np.arange(count)).tolist(), SLOTS]
