"""A complete decoder of .lic files on exported models: NumPy and ONNX Runtime alone, nothing of licquant.

    licquant export model.licq --onnx folder
    python decode_with_onnxruntime.py folder image.lic image.ppm

The numbers are those of docs/formats.md; docs/onnx.md says what the models take and give. What a file has beside its
colours (version 2: metadata, transparency) is left to licquant itself.
"""

import json
import struct
import sys
import zlib
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime


class Stack:
    """A string of symbols: an ANS stack of 32-bit words with a state of 64 bits."""

    def __init__(self, data: bytes) -> None:
        self.words = list(struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4))) or [1 << 24]
        self.state = 0
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()

    def slots(self, starts: list, count: int) -> np.ndarray:
        """So many slots, one after another, of the model whose slots start there."""
        found = np.empty(count, np.int64)
        for i in range(count):
            quantile = self.state & 0xFFFFFF
            slot = found[i] = bisect_right(starts, quantile) - 1
            self.state = (self.state >> 24) * (starts[slot + 1] - starts[slot]) + quantile - starts[slot]
            if self.state < 1 << 32 and self.words:
                self.state = self.state << 32 | self.words.pop()
        return found

    def raw(self, count: int, bits: int) -> np.ndarray:
        """So many values of as many bits."""
        values = np.zeros(count, np.int64)
        for low in reversed(range(0, bits, 16)):
            equal = min(16, bits - low)
            values |= self.slots([i << 24 - equal for i in range((1 << equal) + 1)], count) << low
        return values


def starts_of(frequencies: list) -> list:
    """Where each slot starts, and 2^24."""
    n, before = len(frequencies), np.cumsum([0, *frequencies])
    return [int(c) * ((1 << 24) - n) // 65536 + i for i, c in enumerate(before[:-1])] + [1 << 24]


ESCAPES = [0] * 33
for j in range(33):
    ESCAPES[j] = (65536 - sum(ESCAPES)) // 4 if j < 32 else 65536 - sum(ESCAPES)


class Tables:
    """The coding tables of a latent."""

    def __init__(self, record: dict) -> None:
        self.starts, self.first = [starts_of(f) for f in record["frequencies"]], np.array(record["offsets"])
        self.length = np.array([len(f) - 1 for f in record["frequencies"]])

    def decode(self, stack: Stack, index: np.ndarray) -> np.ndarray:
        """One group: the table of each symbol to the symbols, in the shape of the index."""
        order = np.argsort(index.ravel(), kind="stable")
        table = index.ravel()[order]
        slots = np.concatenate([stack.slots(self.starts[k], np.sum(table == k)) for k in np.unique(table)] or [table])
        first, length = self.first[table], self.length[table]
        symbols, escaped = first + slots, np.flatnonzero(slots == length)
        classes = stack.slots(starts_of(ESCAPES), escaped.size)
        for c in np.unique(classes):
            at = escaped[classes == c]
            raw = stack.raw(at.size, int(c) + 1)
            far = (raw >> 1) + (1 << int(c))
            symbols[at] = np.where(raw & 1, first[at] - far, first[at] + length[at] - 1 + far)
        return symbols[np.argsort(order)].reshape(index.shape).astype(np.int32)


def regions(data: bytes, at: int) -> tuple | None:
    """The side of a region in pixels, and the length of each string of each, of the fields that begin there."""
    count = data[at] if data[4] == 2 else 0
    start = at + 1 + 5 * count
    for i in range(count):
        kind, size = struct.unpack_from("<BI", data, at + 1 + 5 * i)
        if kind == 6:
            side, *lengths = struct.unpack_from(f"<{size // 4}I", data, start)
            return side, lengths
        start += size
    return None


class Decoder:
    """The models of an exported folder."""

    def __init__(self, folder: Path, options: onnxruntime.SessionOptions | None = None) -> None:
        files, cpu = sorted(folder.glob("*.onnx")), ["CPUExecutionProvider"]
        self.models = {file.stem: onnxruntime.InferenceSession(str(file), options, cpu) for file in files}
        self.about = json.loads((folder / "tables.json").read_text())
        self.tables = {name: Tables(record) for name, record in self.about["tables"].items()}

        if "check" in self.about:  # a runtime may compute in fewer bits than ONNX asks for
            check, count = self.about["check"], len(self.tables["z"].starts)
            c, row, column = np.indices((count, check["height"], check["width"]), np.int32)
            found = self.run("hyper", z_symbols=((7 * c + 5 * row + 3 * column) % 11 - 5)[None])
            if zlib.crc32(b"".join(values.astype("<i4").tobytes() for values in found)) != check["crc32"]:
                raise SystemExit("this runtime computes hyper.onnx wrongly")

    def run(self, name: str, **inputs: np.ndarray) -> list:
        """The outputs of a model."""
        return self.models[name].run(None, inputs)

    def decode(self, data: bytes) -> np.ndarray:
        """uint8 [height, width, 3]."""
        if data[:5] not in (b"LICI\1", b"LICI\2") or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise SystemExit("not an undamaged .lic file of version 1 or 2")
        model, width, height, count = struct.unpack_from("<8sIIB", data, 5)
        if model.hex() != self.about["model"]:
            raise SystemExit(f"coded with model {model.hex()}, these files are of {self.about['model']}")
        ends = 22 + 4 * count + np.cumsum([0, *struct.unpack_from(f"<{count}I", data, 22)])
        strings, rows = [data[a:b] for a, b in pairwise(ends)], []
        side, lengths = regions(data, int(ends[-1])) or (max(height, width), [len(string) for string in strings])
        for top in range(0, height, side):
            rows.append([])
            for left in range(0, width, side):
                own = [Stack(string[:n]) for string, n in zip(strings, lengths, strict=False)]
                strings, lengths = [s[n:] for s, n in zip(strings, lengths, strict=False)], lengths[count:]
                size = (-(-min(side, n) // self.about["stride"]) for n in (height - top, width - left))
                rows[-1].append(self.symbols(own, tuple(size)))
                if any(stack.words or stack.state != 1 << 24 for stack in own):
                    raise SystemExit("its strings do not end where their symbols do")
        whole = {name: np.block([[region[name] for region in row] for row in rows]) for name in rows[0][0]}
        return self.run("synthesis", **whole)[0][0, :height, :width]

    def symbols(self, strings: list, size: tuple) -> dict:
        """What synthesis reads."""
        first = self.tables.get("z", self.tables["y"])
        channel = np.arange(len(first.starts))[:, None, None]
        z = first.decode(strings[0], np.broadcast_to(channel, (len(channel), *size)))
        if "z" not in self.tables:
            return {"y_symbols": z[None]}
        found = self.run("hyper", z_symbols=z[None])
        if len(found) == 2:  # the table and the mean of every symbol
            return {"y_symbols": self.tables["y"].decode(strings[1], found[0]), "means": found[1]}
        return self.in_passes(strings[1], found[0])

    def in_passes(self, string: Stack, hyper: np.ndarray) -> dict:
        """What synthesis reads, where symbols depend on symbols before them."""
        order, channels = self.about["order"], self.models["synthesis"].get_inputs()[0].shape[1]
        symbols, means, y_hat = np.zeros((3, channels, *hyper.shape[2:]), np.int32)
        row, column = np.indices(hyper.shape[2:])

        def put(channels: slice, places: tuple, index: np.ndarray, mean: np.ndarray) -> None:
            symbol = self.tables["y"].decode(string, index)
            symbols[channels, *places], means[channels, *places] = symbol, mean
            exact = (symbol.astype(np.int64) << self.about["fraction_bits"]["y_hat"]) + mean
            y_hat[channels, *places] = np.clip(exact, 1 - 2**31, 2**31 - 1)

        if order["kind"] == "diagonals":
            taps = np.array(order["taps"])
            margin = abs(taps).max()
            time = column + order["step"] * row
            for t in range(time.max() + 1):
                r, c = np.nonzero(time == t)
                if len(r):
                    plane = np.pad(y_hat, ((0, 0), (margin, margin), (margin, margin)))
                    seen = plane[:, taps[:, :1] + r + margin, taps[:, 1:] + c + margin].reshape(1, -1, 1, len(r))
                    index, mean = self.run("context", neighbours=seen, hyper=hyper[:, :, None, r, c])
                    put(slice(None), (r, c), index[0, :, 0], mean[0, :, 0])
            return {"y_symbols": symbols[None], "means": means[None]}
        first = 0
        for k, count in enumerate(order["groups"]):
            channels, name = slice(first, first + count), f"context{k}" if len(order["groups"]) > 1 else "context"
            more = {"channels": self.run(f"channels{k}", y_hat=y_hat[None, :first])[0]} if k else {}
            for step in (0, 1):
                places = np.nonzero((row + column) % 2 == step)
                inputs = {"y_hat": y_hat[None, channels], "hyper": hyper, "pass": np.array([step], np.int32), **more}
                index, mean = self.run(name, **inputs)
                put(channels, places, index[0][:, *places], mean[0][:, *places])
            first += count
        return {"y_symbols": symbols[None], "means": means[None]}


if __name__ == "__main__":
    folder, coded, output = map(Path, sys.argv[1:])
    pixels = Decoder(folder).decode(coded.read_bytes())
    output.write_bytes(b"P6 %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes())
