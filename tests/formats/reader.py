"""A second reader of ``.licq`` and ``.lic``, written from ``docs/formats.md`` alone: NumPy and nothing of licquant.

It shows that the page is enough to write a decoder from. The headings below are those of the page. It trusts the files
that it reads, takes the plainest way everywhere, and is slow.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

LIMIT = 2**31 - 1

# --- Containers


def read_lic(data: bytes) -> dict[str, Any]:
    magic, version, model, width, height, count = struct.unpack_from("<4sB8sIIB", data)
    assert magic == b"LICI"
    assert version in (1, 2)
    assert zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    sizes = struct.unpack_from(f"<{count}I", data, 22)
    strings, at = cut(data, 22 + 4 * count, sizes)
    fields: dict[int, bytes] = {}
    if version == 2:
        table = [struct.unpack_from("<BI", data, at + 1 + 5 * i) for i in range(data[at])]
        contents, at = cut(data, at + 1 + 5 * data[at], [size for _, size in table])
        fields = {kind: content for (kind, _), content in zip(table, contents, strict=True)}
    assert at == len(data) - 4
    return {"model": model, "width": width, "height": height, "strings": strings, "fields": fields}


def beside(stream: dict[str, Any]) -> dict[str, Any]:
    """What a picture carries beside its colours: name → bytes, dots per inch, or uint8 [H, W]."""
    found: dict[str, Any] = {}
    for kind, content in stream["fields"].items():
        if kind in (1, 2, 3):
            unpacked = zlib.decompress(content[4:])
            assert len(unpacked) == int.from_bytes(content[:4], "little")
            found[("profile", "exif", "xmp")[kind - 1]] = unpacked
        elif kind == 4:
            found["density"] = tuple(value / 1000 for value in struct.unpack("<II", content))
        elif kind == 5:
            rows = np.frombuffer(zlib.decompress(content), np.uint8).reshape(stream["height"], stream["width"])
            found["alpha"] = np.add.accumulate(rows, axis=0, dtype=np.uint8)
    return found


def read_licq(data: bytes) -> tuple[dict[str, Any], list[bytes], bytes]:
    """(header, blobs, identity)."""
    magic, version, length = struct.unpack_from("<4sHI", data)
    assert magic == b"LICQ"
    assert version in (2, 4)
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    header = json.loads(data[10 : 10 + length])
    assert ("dynamic" in header) == (version == 4)
    blobs, end = cut(data, 10 + length, header["blobs"])
    assert end == len(data) - 32
    return header, blobs, data[-32:-24]


def cut(data: bytes, at: int, sizes: Any) -> tuple[list[bytes], int]:
    pieces = []
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return pieces, at


# --- Rice coding


def rice(data: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    """(values, where the data goes on)."""
    if not count:
        return np.zeros(0, np.int64), at + 1
    k, bits = data[at], np.unpackbits(np.frombuffer(data, np.uint8, offset=at + 1), bitorder="little")
    ends = np.flatnonzero(bits)[:count]
    unary = int(ends[-1]) + 1
    low = bits[unary : unary + count * k].reshape(count, k).astype(np.int64) @ (1 << np.arange(k, dtype=np.int64))
    return ((np.diff(ends, prepend=-1) - 1) << k) + low, at + 1 + -(-(unary + count * k) // 8)


def signed(values: np.ndarray) -> np.ndarray:
    return np.where(values & 1, -(values >> 1) - 1, values >> 1)


# --- The ANS stack


class Stack:
    def __init__(self, data: bytes) -> None:
        assert not data or data[-1] != 0
        self.words = list(struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4))) or [1 << 24]
        self.state = 0
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()

    def slot(self, starts: list[int]) -> int:
        """starts: where each slot's interval begins, and 2^24 at the end."""
        quantile = self.state & 0xFFFFFF
        found = bisect_right(starts, quantile) - 1
        self.state = (self.state >> 24) * (starts[found + 1] - starts[found]) + quantile - starts[found]
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return found

    def slots(self, starts: list[int], count: int) -> list[int]:
        return [self.slot(starts) for _ in range(count)]

    def raw(self, count: int, bits: int) -> np.ndarray:
        values = np.zeros(count, np.int64)
        for shift in reversed(range(0, bits, 16)):
            width = 1 << min(16, bits - shift)
            starts = [i << 24 >> (width.bit_length() - 1) for i in range(width + 1)]
            values |= np.array(self.slots(starts, count), np.int64) << shift
        return values

    def finish(self) -> None:
        assert (self.words, self.state) == ([], 1 << 24)


def starts_of(frequencies: Any) -> list[int]:
    n, before, found = len(frequencies), 0, []
    for i, frequency in enumerate(frequencies):
        found.append((before * ((1 << 24) - n) >> 16) + i)
        before += int(frequency)
    return [*found, 1 << 24]


# --- Packed weights


def apportion(weights: list[int]) -> list[int]:
    """Frequencies that sum to 2^16, in proportion to the weights."""
    shared = list(range(len(weights)))
    while True:
        total, rest = sum(weights[i] for i in shared), 65536 - (len(weights) - len(shared))
        share = {i: weights[i] * rest // total for i in shared}
        if min(share.values()) >= 1:
            break
        shared = [i for i in shared if share[i] >= 1]
    left = rest - sum(share.values())
    for i in sorted(shared, key=lambda i: share[i] * total - weights[i] * rest)[:left]:
        share[i] += 1
    return [share.get(i, 1) for i in range(len(weights))]


def unpack_weights(data: bytes, shape: list[int], bits: int) -> np.ndarray:
    count, limit, low, at = prod(shape), (1 << bits - 1) - 1, data[0], 1
    if low == bits:
        stack, high = Stack(data[1:]), np.zeros(count, np.int64)
    else:
        classes, at = weight_classes(data, at, shape)
        models, at = histograms(data, at, int(classes.max()) + 1)
        stack, high = Stack(data[at:]), np.empty(count, np.int64)
        for c, (bins, frequencies) in enumerate(models):
            size = int((classes == c).sum())
            if size:
                one = len(bins) == 1
                slots = [0] * size if one else stack.slots(starts_of(frequencies), size)
                high[classes == c] = np.array(bins)[slots]
    values = stack.raw(count, low) | high << low
    stack.finish()
    return (values - limit).reshape(shape)


def weight_classes(data: bytes, at: int, shape: list[int]) -> tuple[np.ndarray, int]:
    kind, at = data[at], at + 1
    axes = (*shape, 1, 1)[0], (*shape, 1, 1)[1], prod(shape[2:])
    if kind == 0:
        return np.zeros(prod(axes), np.int64), at
    levels = []
    for size in axes:
        stored, at = rice(data, at, size)
        levels.append(signed(stored) - signed(stored).min())
    return ((levels[0][:, None, None] + levels[1][:, None] + levels[2]) >> (kind - 1)).ravel(), at


def histograms(data: bytes, at: int, classes: int) -> tuple[list[tuple[list[int], list[int]]], int]:
    t = data[at]
    firsts, at = rice(data, at + 1, classes)
    lengths, at = rice(data, at, classes)
    deltas, at = rice(data, at, int(lengths.sum()))
    levels = np.cumsum(signed(deltas)).tolist()
    counts = [v if v >> t == 0 else ((v & (1 << t) - 1) | 1 << t) << (v >> t) - 1 for v in levels]
    models, begin = [], 0
    for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
        own = {first + i: n for i, n in enumerate(counts[begin : begin + length]) if n}
        begin += length
        models.append((list(own), apportion(list(own.values())) if len(own) > 1 else []))
    return models, at


# --- Coding tables, and symbols


class Tables:
    def __init__(self, data: bytes) -> None:
        count, at = int.from_bytes(data[:4], "little"), 4
        self.lengths, at = rice(data, at, count)
        offsets, at = rice(data, at, count)
        self.offsets = signed(offsets)
        sizes, at = rice(data, at, count)
        self.starts = []
        for length, piece in zip(self.lengths.tolist(), cut(data, at, sizes.tolist())[0], strict=True):
            inside = np.cumsum(signed(rice(piece, 0, length)[0])).tolist()
            self.starts.append(starts_of([*inside, 65536 - sum(inside)]))

    def decode(self, stack: Stack, index: np.ndarray) -> np.ndarray:
        """One group: the table of each symbol → the symbols."""
        order = np.argsort(index, kind="stable")
        slots = np.array([stack.slot(self.starts[k]) for k in index[order].tolist()], np.int64)
        first, length = self.offsets[index[order]], self.lengths[index[order]]
        symbols, escaped = first + slots, np.flatnonzero(slots == length)
        if escaped.size:
            classes = np.array(stack.slots(ESCAPES, escaped.size), np.int64)
            for c in np.unique(classes).tolist():
                here = escaped[classes == c]
                raw = stack.raw(here.size, c + 1)
                distance = (raw >> 1) + (1 << c)
                symbols[here] = np.where(raw & 1, first[here] - distance, first[here] + length[here] - 1 + distance)
        found = np.empty_like(symbols)
        found[order] = symbols
        return found


def escape_frequencies() -> list[int]:
    found: list[int] = []
    for _ in range(32):
        found.append((65536 - sum(found)) // 4)
    return [*found, 65536 - sum(found)]


ESCAPES = starts_of(escape_frequencies())

# --- Tensors of the header


class Model:
    def __init__(self, data: bytes) -> None:
        self.header, self.blobs, self.identity = read_licq(data)
        self.family = self.header["family"]
        self.parts = {part["name"]: part for part in self.header["program"]}
        self.tables = self.header["tables"]
        self._weights: dict[str, np.ndarray] = {}

    def vector(self, reference: dict[str, Any]) -> np.ndarray:
        if "value" in reference:
            return np.full(reference["shape"], reference["value"])
        found = np.frombuffer(self.blobs[reference["blob"]], reference["dtype"])
        return found.astype(np.float64 if reference["dtype"] == "<f4" else np.int64)

    def column(self, reference: dict[str, Any]) -> np.ndarray:
        """A vector that stands for channels, to be used with tensors [C, H, W]."""
        return self.vector(reference)[:, None, None]

    def weights(self, reference: dict[str, Any]) -> np.ndarray:
        key = json.dumps(reference)
        if key not in self._weights:
            bits = reference["bits"]
            found = unpack_weights(self.blobs[reference["blob"]], reference["shape"], bits)
            drop = bits - reference.get("nested", bits)
            if drop:
                limit = (1 << bits - drop - 1) - 1
                found = np.clip((found + (1 << drop - 1)) >> drop, -limit, limit)
            self._weights[key] = found
        return self._weights[key]

    def table(self, name: str) -> Tables:
        return Tables(self.blobs[self.tables[name]["blob"]])

    # --- The integer program

    def run(self, part: dict[str, Any], x: np.ndarray) -> np.ndarray:
        """Stored integers [C, H, W] of the part's input to those of its output."""
        tensors = {"input": (x.astype(np.int64), part["input_grid"])}
        for op in part["operations"]:
            read = [tensors[name] for name in op["inputs"]]
            centred = [q - self.column(grid["zero_point"]) for q, grid in read]
            tensors[op["name"]] = (OPERATIONS[op["kind"]](self, op, centred, read[0]), op["grid"])
        return tensors[part["operations"][-1]["name"]][0]

    def stored(self, y: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
        low, high = (-LIMIT, LIMIT) if grid["bits"] == 32 else (0, (1 << grid["bits"]) - 1)
        return np.clip(y + self.column(grid["zero_point"]), low, high)

    def rescaled(self, acc: np.ndarray, op: dict[str, Any]) -> np.ndarray:
        positive, negative, shift = (self.column(op["rescaling"][key]) for key in ("positive", "negative", "shift"))
        return self.stored(rescale(acc, np.where(acc < 0, negative, positive), shift), op["grid"])


def rescale(acc: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (acc * multiplier + (np.int64(1) << shift - 1)) >> shift


def product(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Σ over channels of weight[O, I] · x[I, H, W]. Sums stay below 2^46, so float64 holds every one exactly."""
    return np.tensordot(weight.astype(np.float64), x.astype(np.float64), 1).astype(np.int64)


def convolution(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    w, pad, step, groups = model.weights(op["weight"]), op["padding"], op["stride"], op["groups"]
    padded = np.pad(x[0], ((0, 0), (pad, pad), (pad, pad)))
    height, width = ((n - k) // step + 1 for n, k in zip(padded.shape[1:], w.shape[2:], strict=True))
    acc = np.zeros((len(w), height, width), np.int64)
    outputs, inputs = len(w) // groups, w.shape[1]
    for a in range(w.shape[2]):
        for b in range(w.shape[3]):
            seen = padded[:, a : a + (height - 1) * step + 1 : step, b : b + (width - 1) * step + 1 : step]
            for g in range(groups):
                rows = slice(g * outputs, (g + 1) * outputs)
                acc[rows] += product(w[rows, :, a, b], seen[g * inputs : (g + 1) * inputs])
    return model.rescaled(acc + model.column(op["bias"]), op)


def transposed(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    w, pad, step = model.weights(op["weight"]), op["padding"], op["stride"]
    rows, columns = x[0].shape[1:]
    height, width = (
        (n - 1) * step - 2 * pad + k + op["output_padding"] for n, k in zip((rows, columns), w.shape[2:], strict=True)
    )
    kernel = w.shape[2:]
    canvas = np.zeros(
        (
            w.shape[1],
            max(height + 2 * pad, (rows - 1) * step + kernel[0]),
            max(width + 2 * pad, (columns - 1) * step + kernel[1]),
        ),
        np.int64,
    )
    for a in range(kernel[0]):
        for b in range(kernel[1]):
            into = canvas[:, a : a + (rows - 1) * step + 1 : step, b : b + (columns - 1) * step + 1 : step]
            into += product(w[:, :, a, b].T, x[0])
    return model.rescaled(canvas[:, pad : pad + height, pad : pad + width] + model.column(op["bias"]), op)


def gdn(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    q, (k, t, m, s) = x[0], (model.column(op[n]) for n in ("square_multiplier", "square_shift", "multiplier", "shift"))
    u = np.minimum(rescale(q * q, k, t), (1 << op["square_bits"]) - 1)
    norm = np.maximum(product(model.weights(op["gamma"]), u) + model.column(op["beta"]), 1) << 16
    root = np.sqrt(norm.astype(np.float64)).astype(np.int64)
    root -= root * root > norm
    root += (root + 1) * (root + 1) <= norm
    if op["inverse"]:
        return model.stored(rescale(q * root, m, s + 8), op["grid"])
    numerator, denominator = (q * m) << np.maximum(24 - s, 0), root << np.maximum(s - 24, 0)
    return model.stored((2 * numerator + denominator) // (2 * denominator), op["grid"])


def gdn1(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    q, (k, t, m, s) = x[0], (model.column(op[n]) for n in ("square_multiplier", "square_shift", "multiplier", "shift"))
    u = np.minimum(rescale(abs(q), k, t), (1 << op["square_bits"]) - 1)
    norm = np.maximum(product(model.weights(op["gamma"]), u) + model.column(op["beta"]), 1)
    if op["inverse"]:  # the product may have 68 bits
        exact = (q.astype(object) * norm * m + (1 << s.astype(object) + 9)) >> s.astype(object) + 10
        return model.stored(np.clip(exact, -LIMIT, LIMIT).astype(np.int64), op["grid"])
    numerator, denominator = (q * m) << np.maximum(24 - s, 0), norm << np.maximum(s - 24, 0)
    return model.stored((2 * numerator + denominator) // (2 * denominator), op["grid"])


def add(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    return model.rescaled(sum(model.column(m) * q for m, q in zip(op["multipliers"], x, strict=True)), op)


def pixel_shuffle(model: Model, op: dict[str, Any], x: list[np.ndarray], _: Any) -> np.ndarray:
    r, (channels, height, width) = op["factor"], x[0].shape
    blocks = x[0].reshape(channels // r**2, r, r, height, width).transpose(0, 3, 1, 4, 2)
    return model.stored(blocks.reshape(channels // r**2, height * r, width * r), op["grid"])


OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "convolution": convolution,
    "transposed_convolution": transposed,
    "gdn": gdn,
    "gdn1": gdn1,
    "add": add,
    "requantize": lambda model, op, x, _: model.rescaled(x[0], op),
    "multiply": lambda model, op, x, _: model.rescaled(x[0] * x[1], op),
    "sigmoid": lambda model, op, x, read: model.vector(op["table"])[read[0]],
    "pixel_shuffle": pixel_shuffle,
}


# --- Widths that depend on the image


def run_dynamic(model: Model, name: str, x: np.ndarray) -> np.ndarray:
    """The part, with the widths that its selector chooses for this input."""
    part, record = model.parts[name], model.header["dynamic"][name]
    selector, left, selected = record["selector"], list(part["operations"]), None
    grid, before, tensor = part["input_grid"], "input", x
    if selector["tensor"] == "input":
        selected = choose(model, record, tensor, grid)
    for stage in record["stages"]:
        widest, left = left[: stage["operations"]], left[stage["operations"] :]
        chosen = [renamed(op, before) for op in widest]
        if stage["narrower"]:
            assert selected is not None
            width = selected.pop(0)
            chosen = next((one["operations"] for one in stage["narrower"] if one["width"] == width), chosen)
        tensor = model.run({"input_grid": grid, "operations": chosen}, tensor)
        grid, before = widest[-1]["grid"], widest[-1]["name"]
        if selected is None:
            selected = choose(model, record, tensor, grid)
    return tensor


def renamed(op: dict[str, Any], before: str) -> dict[str, Any]:
    return {**op, "inputs": ["input" if name == before else name for name in op["inputs"]]}


def choose(model: Model, record: dict[str, Any], tensor: np.ndarray, grid: dict[str, Any]) -> list[int]:
    """The widths of the stages that have several, in order."""
    magnitude = abs(tensor - model.column(grid["zero_point"]))
    rows, columns = (cells(n) for n in magnitude.shape[1:])
    means = np.array(
        [[mean(magnitude[:, row[:, None], column].reshape(len(magnitude), -1)) for column in columns] for row in rows]
    )
    logits = model.run(record["selector"]["network"], np.moveaxis(means, -1, 0)).ravel()
    widths = []
    for stage in record["stages"]:
        if stage["narrower"]:
            candidates = [*(one["width"] for one in stage["narrower"]), stage["width"]]
            widths.append(candidates[int(logits[: len(candidates)].argmax())])
            logits = logits[len(candidates) :]
    return widths


def cells(size: int) -> list[np.ndarray]:
    found = []
    for i in range(5):
        first, end = i * size // 5, -(-(i + 1) * size // 5)
        n = min(end - first, 4)
        found.append(first + (2 * np.arange(n) + 1) * (end - first) // (2 * n))
    return found


def mean(values: np.ndarray) -> np.ndarray:
    n = values.shape[1]
    return np.minimum((2 * (values.sum(1) << 8) + n) // (2 * n), LIMIT)


# --- Latents


def fraction(model: Model, grid: dict[str, Any]) -> int:
    return round(-float(np.log2(model.vector(grid["scale"])[0])))


def size_after(part: dict[str, Any], model: Model, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that a part makes of an input of that size."""
    sizes = {"input": size}
    for op in part["operations"]:
        height, width = sizes[op["inputs"][0]]
        if op["kind"] == "convolution":
            kernel, extra = op["weight"]["shape"][2:], 2 * op["padding"]
            height, width = ((n + extra - k) // op["stride"] + 1 for n, k in zip((height, width), kernel, strict=True))
        elif op["kind"] == "transposed_convolution":
            kernel, extra = op["weight"]["shape"][2:], op["output_padding"] - 2 * op["padding"]
            height, width = ((n - 1) * op["stride"] + k + extra for n, k in zip((height, width), kernel, strict=True))
        elif op["kind"] == "pixel_shuffle":
            height, width = height * op["factor"], width * op["factor"]
        sizes[op["name"]] = height, width
    return sizes[part["operations"][-1]["name"]]


def decode_symbols(model: Model, stream: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(ŷ, symbols of z)."""
    assert stream["model"] == model.identity
    if 6 not in stream["fields"]:
        return decode_latents(model, stream)
    rows = []
    for row in regions(stream):
        ys, zs = zip(*(decode_latents(model, region) for region in row), strict=True)
        rows.append((np.concatenate(ys, 2), np.concatenate(zs, 2)))
    return np.concatenate([y for y, _ in rows], 1), np.concatenate([z for _, z in rows], 1)


def regions(stream: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Rows of pictures of their own."""
    side, *lengths = struct.unpack(f"<{len(stream['fields'][6]) // 4}I", stream["fields"][6])
    count, ends, found = len(stream["strings"]), [0] * len(stream["strings"]), []
    for top in range(0, stream["height"], side):
        found.append([])
        for left in range(0, stream["width"], side):
            own, lengths = lengths[:count], lengths[count:]
            strings = [s[end : end + n] for s, end, n in zip(stream["strings"], ends, own, strict=True)]
            ends = [end + n for end, n in zip(ends, own, strict=True)]
            height, width = min(side, stream["height"] - top), min(side, stream["width"] - left)
            found[-1].append({"height": height, "width": width, "strings": strings})
    assert (lengths, ends) == ([], [len(s) for s in stream["strings"]])
    return found


def decode_latents(model: Model, stream: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(ŷ, symbols of z) of a picture that is not divided."""
    probe = size_after(model.parts["g_a"], model, (4096, 4096))
    if "h_a" in model.parts:
        probe = size_after(model.parts["h_a"], model, probe)
    stride = 4096 // probe[0]
    size = -(-stream["height"] // stride), -(-stream["width"] // stride)
    if model.family == "factorized":
        latent = fraction(model, model.parts["g_a"]["operations"][-1]["grid"])
        shift = latent - fraction(model, model.parts["g_s"]["input_grid"])
        y = bottleneck(model.table("y"), stream["strings"][0], size)
        restored = restore(y, model.column(model.tables["medians"]), latent)
        return np.clip((restored + (1 << shift >> 1)) >> shift, -LIMIT, LIMIT), np.zeros((0, 0, 0), np.int64)
    h_s = model.parts["h_s"]
    z = bottleneck(model.table("z"), stream["strings"][0], size)
    restored = restore(z, model.column(model.tables["medians"]), fraction(model, h_s["input_grid"]))
    latent = Latent(model, stream["strings"][1], model.run(h_s, restored))
    FAMILIES[model.family](latent)
    latent.stack.finish()
    return latent.y, z


def bottleneck(tables: Tables, string: bytes, size: tuple[int, int]) -> np.ndarray:
    count, stack = len(tables.starts), Stack(string)
    symbols = tables.decode(stack, np.repeat(np.arange(count), prod(size)))
    stack.finish()
    return symbols.reshape(count, *size)


def restore(symbols: np.ndarray, medians: np.ndarray, bits: int) -> np.ndarray:
    return np.clip((np.clip(symbols, -(1 << 22), 1 << 22) << bits) + medians, -LIMIT, LIMIT)


class Latent:
    """ŷ on its way: ``code`` decodes one pass."""

    def __init__(self, model: Model, string: bytes, hyper: np.ndarray) -> None:
        self.model, self.hyper, self.stack, self.tables = model, hyper, Stack(string), model.table("y")
        self.thresholds = model.vector(model.tables["thresholds"])
        grid = model.parts["g_s"]["input_grid"]
        self.bits = fraction(model, grid)
        self.y = np.zeros((grid["zero_point"]["shape"][0], *hyper.shape[1:]), np.int64)

    def code(self, channels: slice, places: np.ndarray, sigma: np.ndarray, mean: Any, parameter_bits: int) -> None:
        """places: flat positions; sigma, mean: [channels, places] in fixed point."""
        shift = parameter_bits - self.bits
        level = np.searchsorted(self.thresholds, np.maximum(sigma, 0), side="left")
        symbols = self.tables.decode(self.stack, level.ravel()).reshape(level.shape)
        found = (symbols << self.bits) + ((mean + (1 << shift >> 1)) >> shift)
        self.y.reshape(len(self.y), -1)[channels, places] = np.clip(found, -LIMIT, LIMIT)

    def plane(self, channels: slice, known: np.ndarray, names: tuple[str, str], first: bool, passes: Any) -> None:
        """A context in the plane. first: whether the context's channels come before the known ones."""
        context, parameters = (self.model.parts[name] for name in names)
        for places, has_context in passes:
            seen = self.model.run(context, self.y[channels])
            if not has_context:
                seen = np.zeros_like(seen) + self.model.column(context["operations"][-1]["grid"]["zero_point"])
            both = self.model.run(parameters, np.concatenate([seen, known] if first else [known, seen]))
            sigma, mean = np.split(both.reshape(len(both), -1)[:, places], 2)
            self.code(channels, places, sigma, mean, fraction(self.model, parameters["operations"][-1]["grid"]))


def hyperprior(latent: Latent, means: bool) -> None:
    flat = latent.hyper.reshape(len(latent.hyper), -1)
    sigma, mean = np.split(flat, 2) if means else (flat, 0)
    bits = fraction(latent.model, latent.model.parts["h_s"]["operations"][-1]["grid"])
    latent.code(slice(None), np.arange(flat.shape[1]), sigma, mean, bits)


def diagonals(latent: Latent) -> Any:
    """Positions of equal column + step · row, in the order of that sum."""
    operations = latent.model.parts["context_prediction"]["operations"]
    op = next(op for op in operations if op["kind"] == "convolution" and op["weight"]["shape"][2:] != [1, 1])
    mask = latent.model.weights(op["weight"]).any(axis=(0, 1))
    if not mask.any():
        mask[op["padding"], op["padding"] - 1] = True
    taps = np.argwhere(mask) - op["padding"]
    step = max([0, *(right // -down + 1 for down, right in taps.tolist() if down < 0)])
    row, column = np.divmod(np.arange(prod(latent.y.shape[1:])), latent.y.shape[2])
    time = column + step * row
    return [(np.flatnonzero(time == t), True) for t in range(time.max() + 1)]


def checkerboard(latent: Latent) -> Any:
    row, column = np.divmod(np.arange(prod(latent.y.shape[1:])), latent.y.shape[2])
    odd = (row + column) % 2 == 1
    return [(np.flatnonzero(~odd), False), (np.flatnonzero(odd), True)]


CONTEXT = ("context_prediction", "entropy_parameters")


def channel_groups(latent: Latent) -> None:
    first, k, parts = 0, 0, latent.model.parts
    while first < len(latent.y):
        known = latent.hyper
        if k:
            known = np.concatenate([latent.model.run(parts[f"channel_context.y{k}"], latent.y[:first]), known])
        end = first + parts[f"spatial_context.y{k}"]["input_grid"]["zero_point"]["shape"][0]
        names = (f"spatial_context.y{k}", f"entropy_parameters.y{k}")
        latent.plane(slice(first, end), known, names, True, checkerboard(latent))
        first, k = end, k + 1


FAMILIES: dict[str, Callable[[Latent], None]] = {
    "scale-hyperprior": lambda latent: hyperprior(latent, False),
    "mean-scale-hyperprior": lambda latent: hyperprior(latent, True),
    "autoregressive": lambda it: it.plane(slice(None), it.hyper, CONTEXT, False, diagonals(it)),
    "checkerboard": lambda it: it.plane(slice(None), it.hyper, CONTEXT, True, checkerboard(it)),
    "channel-groups": channel_groups,
}

# --- Pixels


def decode_pixels(model: Model, stream: dict[str, Any], y: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]."""
    dynamic = "g_s" in model.header.get("dynamic", {})
    pixels = run_dynamic(model, "g_s", y) if dynamic else model.run(model.parts["g_s"], y)
    return np.moveaxis(pixels[:, : stream["height"], : stream["width"]], 0, -1).astype(np.uint8)
