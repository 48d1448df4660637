"""ICC profiles made by hand (version 2): RGB by matrix and gamma, grey by gamma, CMYK by a table."""

import struct

import numpy as np

# (red, green, blue) as (x, y) of each, gamma; None: the curve of sRGB
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), None
ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)), 563 / 256
_D65, _D50 = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(primaries: tuple, gamma: float | None) -> bytes:
    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    columns = np.stack([xyz(*primary) for primary in primaries], axis=1)
    matrix = columns * np.linalg.solve(columns, xyz(*_D65))
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ xyz(*_D65)))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    tags = {name: _xyz(adapted[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    curve = _curve(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Two steps of each ink, to Lab: each takes away its share of the light; black all."""
    lab = []
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        light = 0 if k else 100 * (1 - 0.35 * c - 0.4 * m - 0.1 * y)
        a, b = (0, 0) if k else (-35 * c + 65 * m - 5 * y, -50 * c + 5 * m + 85 * y)
        lab += [light * 65280 / 100, (a + 128) * 256, (b + 128) * 256]
    table = struct.pack(">4s4xBBBx", b"mft2", 4, 3, 2)
    table += struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table += struct.pack(">HH", 2, 2) + struct.pack(">8H", *(0, 65535) * 4)
    table += np.clip(lab, 0, 65535).astype(">u2").tobytes() + struct.pack(">6H", *(0, 65535) * 3)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * float(v)) for v in values))


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return struct.pack(">4s4xIH", b"curv", 1, round(256 * gamma)) + b"\0\0"
    x = np.linspace(0, 1, 1024)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return struct.pack(">4s4xI", b"curv", 1024) + np.rint(65535 * y).astype(">u2").tobytes()


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made by hand\0"
    tags = {
        b"desc": struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(_D50),
        **tags,
    }
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s6H4s", at + len(body), b"test", 0x02400000, kind, space, connection, *(2026, 1, 1, 0, 0, 0), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
