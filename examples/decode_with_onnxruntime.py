"""A complete decoder of .lic files on exported models: NumPy and ONNX Runtime alone, nothing of licquant.

    licquant export model.licq --onnx folder
    python decode_with_onnxruntime.py folder image.lic image.ppm

docs/formats.md says how files are coded, docs/onnx.md what the models take and give. Metadata and alpha are left out.
"""

import json
import struct
import sys
import zlib
from bisect import bisect_right
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime

INT32_MAX = (1 << 31) - 1


class Stack:
    """A string of symbols: an ANS stack of 32-bit words with a state of 64 bits."""

    def __init__(self, data: bytes) -> None:
        self.words = list(struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4))) or [1 << 24]
        self.state = 0

    def slots(self, starts: list | range, count: int) -> np.ndarray:
        """So many slots of a model, starts being where each slot begins, and 2^24."""
        found = np.empty(count, np.int64)
        for i in range(count):
            while self.words and self.state < 1 << 32:
                self.state = self.state << 32 | self.words.pop()
            quantile = self.state & 0xFFFFFF
            slot = found[i] = bisect_right(starts, quantile) - 1
            self.state = (self.state >> 24) * (starts[slot + 1] - starts[slot]) + quantile - starts[slot]
        return found

    def symbols(self, tables: dict, index: np.ndarray) -> np.ndarray:
        """One group of symbols, in the shape of the index, which is the table of each."""
        order = np.argsort(index.ravel(), kind="stable")
        table = index.ravel()[order]
        used, counts = np.unique(table, return_counts=True)
        slots = [self.slots(tables["starts"][k], n) for k, n in zip(used, counts, strict=True)]
        first, end = np.array(tables["offsets"])[table], np.array([len(s) - 2 for s in tables["starts"]])[table]
        symbols = first + np.concatenate([*slots, table[:0]])
        escaped = np.flatnonzero(symbols == first + end)
        classes = self.slots(tables["escapes"], escaped.size)
        for c in np.unique(classes):
            at = escaped[classes == c]
            raw = np.zeros(at.size, np.int64)  # c + 1 bits, the highest first, at most 16 at once
            for low in reversed(range(0, c + 1, 16)):
                raw |= self.slots(range(0, (1 << 24) + 1, 1 << 24 - min(16, c + 1 - low)), at.size) << low
            distance = (raw >> 1) + (1 << c)
            symbols[at] = first[at] + np.where(raw & 1, -distance, end[at] - 1 + distance)
        return symbols[np.argsort(order)].reshape(index.shape).astype(np.int32)


class Decoder:
    """The models of an exported folder."""

    def __init__(self, folder: Path, options: onnxruntime.SessionOptions | None = None) -> None:
        files, cpu = sorted(folder.glob("*.onnx")), ["CPUExecutionProvider"]
        self.models = {file.stem: onnxruntime.InferenceSession(str(file), options, cpu) for file in files}
        self.about = json.loads((folder / "tables.json").read_text())
        self.tables = self.about["tables"]
        if "check" in self.about:  # a runtime may compute in fewer bits than ONNX asks for
            check, count = self.about["check"], len(self.tables["z"]["offsets"])
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
        rest, side = BytesIO(data[22:]), max(height, width)
        lengths = list(struct.unpack(f"<{count}I", rest.read(4 * count)))
        strings = [BytesIO(rest.read(length)) for length in lengths]
        fields = list(struct.iter_unpack("<BI", rest.read(5 * rest.read(1)[0]))) if data[4] == 2 else []
        for kind, size in fields:
            content = rest.read(size)
            if kind == 6:  # coded in regions, of so many pixels a side: the lengths of each one's strings
                side, *lengths = struct.unpack(f"<{size // 4}I", content)
        left_over, rows = iter(lengths), list[list[dict]]()
        for top in range(0, height, side):
            rows.append([])
            for left in range(0, width, side):
                own = [Stack(string.read(next(left_over, 0))) for string in strings]
                size = [-(-min(side, n) // self.about["stride"]) for n in (height - top, width - left)]
                rows[-1].append(self.symbols(own, size))
                if any(stack.words or stack.state != 1 << 24 for stack in own):
                    raise SystemExit("its strings do not end where their symbols do")
        whole = {name: np.block([[region[name] for region in row] for row in rows]) for name in rows[0][0]}
        return self.run("synthesis", **whole)[0][0, :height, :width]

    def symbols(self, strings: list, size: list) -> dict:
        """What synthesis reads."""
        first = self.tables.get("z", self.tables["y"])
        z = strings[0].symbols(first, np.indices((len(first["offsets"]), *size))[0])[None]
        if "z" not in self.tables:
            return {"y_symbols": z}
        found = self.run("hyper", z_symbols=z)
        if len(found) == 2:  # the table and the mean of every symbol
            return {"y_symbols": strings[1].symbols(self.tables["y"], found[0]), "means": found[1]}
        return self.in_passes(strings[1], *found)

    def in_passes(self, string: Stack, hyper: np.ndarray) -> dict:
        """What synthesis reads, where symbols depend on symbols before them."""
        order, bits, last = self.about["order"], self.about["fraction_bits"]["y_hat"], 0
        symbols, means, y_hat = np.zeros((3, sum(order["groups"]), *hyper.shape[2:]), np.int32)
        row, column = np.indices(hyper.shape[2:])
        diagonals = order["kind"] == "diagonals"
        time = column + order["step"] * row if diagonals else (row + column) % 2
        for k, count in enumerate(order["groups"]):
            channels, last = slice(last, last + count), last + count
            name = "context" if len(order["groups"]) == 1 else f"context{k}"
            before = {"channels": self.run(f"channels{k}", y_hat=y_hat[None, : channels.start])[0]} if k else {}
            for t in np.unique(time):
                r, c = np.nonzero(time == t)
                if diagonals:  # all taps of all channels side by side
                    taps = np.array(order["taps"])
                    margin = abs(taps).max()
                    plane = np.pad(y_hat, ((0, 0), (margin, margin), (margin, margin)))
                    seen = plane[:, taps[:, :1] + r + margin, taps[:, 1:] + c + margin].reshape(1, -1, 1, len(r))
                    found = self.run(name, neighbours=seen, hyper=hyper[:, :, None, r, c])
                    index, mean = (values[0, :, 0] for values in found)
                else:
                    inputs = {"y_hat": y_hat[None, channels], "hyper": hyper, "pass": np.array([t], np.int32)}
                    index, mean = (values[0][:, r, c] for values in self.run(name, **inputs, **before))
                symbol = string.symbols(self.tables["y"], index)
                exact = np.clip((symbol.astype(np.int64) << bits) + mean, -INT32_MAX, INT32_MAX)
                symbols[channels, r, c], means[channels, r, c], y_hat[channels, r, c] = symbol, mean, exact
        return {"y_symbols": symbols[None], "means": means[None]}


if __name__ == "__main__":
    folder, coded, output = map(Path, sys.argv[1:])
    pixels = Decoder(folder).decode(coded.read_bytes())
    output.write_bytes(b"P6 %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes())
