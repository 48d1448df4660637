"""``tables.json``: what a codec on these models needs beside them. Integers and names only."""

from __future__ import annotations

from typing import Any

import numpy as np

from licquant.codec.entropy.tables import CodingTables
from licquant.codec.latents.channel_groups import ChannelGroupsCoder
from licquant.codec.latents.context import AutoregressiveCoder, CheckerboardCoder
from licquant.codec.latents.factorized import FactorizedCoder
from licquant.codec.latents.families import LatentCoder
from licquant.codec.latents.orders import Diagonals

FORMAT = 1


def tables_record(family: str, identity: str, licence: str, stride: int, coder: LatentCoder) -> dict[str, Any]:
    """The file's content; ``docs/onnx.md`` says what each key means."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "family": family,
        "model": identity,
        "licence": licence,
        "stride": stride,
        "order": _order(coder),
    }
    if isinstance(coder, FactorizedCoder):
        return {**record, "tables": {"y": _tables(coder.latent.tables)}}
    quantizer = coder.quantizer
    bits = {"y": quantizer.latent_bits, "y_hat": quantizer.output_bits}
    tables = {"z": _tables(coder.tables.z), "y": _tables(coder.tables.y)}
    return {**record, "fraction_bits": bits, "tables": tables}


def _order(coder: LatentCoder) -> dict[str, Any]:
    """In which passes the symbols of y are coded."""
    if isinstance(coder, ChannelGroupsCoder):
        return {
            "kind": "checkerboard",
            "groups": [group.channels.stop - group.channels.start for group in coder.groups],
        }
    if isinstance(coder, CheckerboardCoder):
        return {"kind": "checkerboard", "groups": [coder.latent_channels]}
    if isinstance(coder, AutoregressiveCoder):
        order, taps = coder.context.order, coder.context.convolution.taps
        assert isinstance(order, Diagonals)
        return {"kind": "diagonals", "taps": taps.tolist(), "step": order.step}
    return {"kind": "at once"}


def _tables(tables: CodingTables) -> dict[str, Any]:
    ends = np.cumsum(tables.lengths.astype(np.int64) + 1)
    frequencies = [part.tolist() for part in np.split(tables.frequencies, ends[:-1])]
    return {"offsets": tables.offsets.tolist(), "frequencies": frequencies}
