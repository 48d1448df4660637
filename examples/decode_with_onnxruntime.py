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
from onnxruntime import InferenceSession, SessionOptions


class Stack:
    """A string of symbols: an ANS stack of 32-bit words with a state of 64 bits."""

    def __init__(self, data: bytes) -> None:
        self.words, self.state = np.frombuffer(data + bytes(-len(data) % 4), "<u4").tolist() or [1 << 24], 0

    def slot(self, starts: list | range) -> int:
        """The next slot of a model, starts being where each slot begins, and 2^24."""
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()
        quantile = self.state & 0xFFFFFF
        slot = bisect_right(starts, quantile) - 1
        self.state = (self.state >> 24) * (starts[slot + 1] - starts[slot]) + quantile - starts[slot]
        return slot

    def symbols(self, tables: dict, index: np.ndarray) -> np.ndarray:
        """One group of symbols, in the shape of the index, which is the table of each."""
        order = np.argsort(index, axis=None, kind="stable")
        table = index.ravel()[order]
        first, end = (np.array(tables[name])[table] for name in ("offsets", "ends"))
        symbols = first + [self.slot(tables["starts"][k]) for k in table]
        escaped = np.flatnonzero(symbols == end)
        classes = np.array([self.slot(tables["escapes"]) for _ in escaped])
        for c in np.unique(classes):
            at, raw = escaped[classes == c], 0
            for low in reversed(range(0, c + 1, 16)):  # c + 1 bits, the highest first, at most 16 at once
                raw += np.array([self.slot(range(0, 2**24 + 1, 2 ** (24 - min(16, c + 1 - low)))) << low for _ in at])
            distance = (raw >> 1) + (1 << c)
            symbols[at] = np.where(raw & 1, first[at] - distance, end[at] - 1 + distance)
        return symbols[np.argsort(order)].reshape(index.shape).astype(np.int32)


class Decoder:
    """The models of an exported folder."""

    def __init__(self, folder: Path, options: SessionOptions | None = None) -> None:
        cpu, self.about = ["CPUExecutionProvider"], json.loads((folder / "tables.json").read_text())
        self.models = {file.stem: InferenceSession(str(file), options, cpu) for file in folder.glob("*.onnx")}
        if check := self.about.get("check"):  # a runtime may compute in fewer bits than ONNX asks for
            found = self.models["hyper"].run(None, {"z_symbols": np.array(check["z_symbols"], np.int32)})
            if zlib.crc32(b"".join(values.astype("<i4").tobytes() for values in found)) != check["crc32"]:
                raise SystemExit("this runtime computes hyper.onnx wrongly")

    def decode(self, data: bytes) -> np.ndarray:
        """uint8 [height, width, 3]."""
        if data[:5] not in (b"LICI\1", b"LICI\2") or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise SystemExit("not an undamaged .lic file of version 1 or 2")
        model, width, height, count = struct.unpack_from("<8sIIB", data, 5)
        if model.hex() != self.about["model"]:
            raise SystemExit(f"coded with model {model.hex()}, these files are of {self.about['model']}")
        rest, stride = BytesIO(data[22:-4]), self.about["stride"]
        lengths = rest.read(4 * count)
        strings = [BytesIO(rest.read(length)) for length in np.frombuffer(lengths, "<u4")]
        fields = {kind: rest.read(size) for kind, size in struct.iter_unpack("<BI", rest.read(5 * sum(rest.read(1))))}
        # Field 6: coded in regions, of so many pixels a side, and the lengths of each one's strings.
        side, *lengths = np.frombuffer(fields.get(6, struct.pack("<I", max(height, width)) + lengths), "<u4").tolist()
        stacks = [Stack(strings[i % count].read(length)) for i, length in enumerate(lengths)]
        own = (stacks[i : i + count] for i in range(0, len(stacks), count))
        sizes = [[-(-min(side, n - at) // stride) for at in range(0, n, side)] for n in (height, width)]
        y = np.block([[self.latents(next(own), rows, columns) for columns in sizes[1]] for rows in sizes[0]])
        if any(stack.words or stack.state != 1 << 24 for stack in stacks):
            raise SystemExit("its strings do not end where their symbols do")
        inputs = dict(zip(("y_symbols", "means"), y[:, None], strict=False))
        return self.models["synthesis"].run(None, inputs)[0][0, :height, :width]

    def latents(self, stacks: list, rows: int, columns: int) -> np.ndarray:
        """The symbols of y and, where it has any, their means, of a region of so many coded positions."""
        tables, order = self.about["tables"], self.about.get("order")
        own = tables.get("z", tables["y"])
        z = stacks[0].symbols(own, np.indices((len(own["offsets"]), rows, columns))[0])[None]
        if "z" not in tables:
            return z
        hyper, *means = self.models["hyper"].run(None, {"z_symbols": z})
        if order is None:  # hyper is the table of each symbol
            return np.concatenate([stacks[1].symbols(tables["y"], hyper), *means])
        (h, w), margin, bits = hyper.shape[2:], order["margin"], self.about["fraction_bits"]["y_hat"]
        y = np.zeros((3, self.about["synthesis"]["channels"], h + margin, w + margin), np.int32)  # symbols, means, ŷ
        time = (np.arange(w) + order["step"] * np.arange(h)[:, None]) % order["period"]
        for k, group in enumerate(order["groups"]):
            (first, end), (down, right) = group["channels"], np.array(group["taps"]).T[..., None]
            before = {"y_hat": y[2:, :first, :h, :w], "hyper": hyper}
            known = self.models[f"channels{k}"].run(None, before)[0] if k else hyper
            for now in np.unique(time):
                r, c = np.nonzero(time == now)
                seen = y[2, first:end][:, r + down, c + right].reshape(1, -1, 1, len(r))  # -1 is in the margin
                inputs = {"neighbours": seen, "known": known[:, :, None, r, c], "time": np.array([now], np.int32)}
                index, mean = (values[0, :, 0] for values in self.models[f"context{k}"].run(None, inputs))
                symbol = stacks[1].symbols(tables["y"], index)
                exact = np.clip((symbol.astype(np.int64) << bits) + mean, 1 - (1 << 31), (1 << 31) - 1)
                y[:, first:end, r, c] = symbol, mean, exact
        return y[:2, :, :h, :w]


if __name__ == "__main__":
    pixels = Decoder(Path(sys.argv[1])).decode(Path(sys.argv[2]).read_bytes())
    Path(sys.argv[3]).write_bytes(b"P6 %d %d 255\n" % pixels.shape[1::-1] + pixels.tobytes())
