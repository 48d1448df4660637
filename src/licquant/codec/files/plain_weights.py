"""Weights as plain integers, for ``ready.py``: the length of what follows, JSON of what the arrays are, the arrays."""

from __future__ import annotations

import json
import math
import struct

import numpy as np

from licquant.codec.files.blobs import Unpacked
from licquant.program.arithmetic import weight_type

_LENGTH = struct.Struct("<I")


def weights_to_plain(weights: Unpacked) -> bytes:
    """Weights of 2 to 16 bits, as they are read from an artifact."""
    index = json.dumps([[blob, shape, bits] for blob, shape, bits in weights]).encode()
    arrays = [array.astype(weight_type(bits)).tobytes() for (_, _, bits), array in weights.items()]
    return b"".join([_LENGTH.pack(len(index)), index, *arrays])


def plain_to_weights(data: memoryview) -> Unpacked:
    """The inverse: views of the data."""
    at = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    weights: Unpacked = {}
    for blob, shape, bits in json.loads(bytes(data[_LENGTH.size : at])):
        array: np.ndarray = np.frombuffer(data, weight_type(bits), math.prod(shape), at)
        weights[blob, tuple(shape), bits] = array.reshape(shape)
        at += array.nbytes
    return weights
