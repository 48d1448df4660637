"""Seeds for independent random streams, made from what the stream is for."""

import hashlib
import struct

# One number for each purpose, so that two purposes never share a stream.
WEIGHTS, ORDER, CROPS, NOISE, STEP = range(5)


def mix(*values: int) -> int:
    """A seed in [0, 2^63) from integers in [0, 2^64); unlike inputs give unrelated seeds."""
    digest = hashlib.blake2b(struct.pack(f"<{len(values)}Q", *values), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
