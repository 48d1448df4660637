"""The worked example of docs/formats.md: a small file in hex with every field named, by the second reader.

python tools/make_format_example.py            print it
python tools/make_format_example.py --write    put it into the page
"""

import argparse
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.formats import reader  # noqa: E402

PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- example -->\n", "<!-- /example -->\n"
CORPUS = ROOT / "tests" / "conformance" / "corpus"
NAME, PICTURE = "bmshj2018-hyperprior", "pixel"
_A_LINE = 16


class Listing:
    """Lines of offset, bytes and meaning, that go through some bytes without leaving any out."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at, self.lines = data, at, ["| offset | bytes | meaning |", "|---|---|---|"]

    def take(self, size: int, meaning: str, shown: int | None = None) -> bytes:
        """The next bytes; ``shown``: how many of them are printed, all if it is not given."""
        piece = self.data[self.at : self.at + size]
        assert len(piece) == size
        for first in range(0, min(size, shown or size) or 1, _A_LINE):
            text = piece[first : min(first + _A_LINE, shown or size)].hex(" ")
            more = " …" if shown and shown < size else ""
            self.lines.append(f"| {self.at + first} | `{text}`{more} | {'' if first else meaning} |")
        self.at += size
        return piece


def example() -> Iterator[str]:
    """The lines of the example."""
    model = reader.Model((CORPUS / f"{NAME}.licq").read_bytes())
    coded = (CORPUS / f"{NAME}.{PICTURE}.lic").read_bytes()
    yield f"**`{NAME}.{PICTURE}.lic`**, {len(coded)} bytes:"
    yield ""
    yield from _image(coded)
    yield ""
    yield from _decoded(model, coded)
    yield ""
    yield f"**`{NAME}.licq`**:"
    yield ""
    yield from _artifact((CORPUS / f"{NAME}.licq").read_bytes())
    yield ""
    yield from _weights(model)
    yield ""
    yield from _tables(model)


def _image(coded: bytes) -> list[str]:
    found, listing = reader.read_lic(coded), Listing(coded)
    listing.take(4, "magic, `LICI`")
    listing.take(1, "version 1: no optional fields")
    listing.take(8, "identity of the model")
    listing.take(4, f"width {found['width']}")
    listing.take(4, f"height {found['height']}")
    listing.take(1, f"{len(found['strings'])} strings")
    for i, string in enumerate(found["strings"]):
        listing.take(4, f"string {i} has {len(string)} bytes")
    for i, string in enumerate(found["strings"]):
        listing.take(len(string), f"string {i}, of {'zy'[i]}")
    listing.take(4, "CRC-32 of everything before")
    assert listing.at == len(coded)
    return listing.lines


def _decoded(model: reader.Model, coded: bytes) -> Iterator[str]:
    stream = reader.read_lic(coded)
    string = stream["strings"][0]
    stack = reader.Stack(string)
    words = [f"`{word:08x}`" for word in np.frombuffer(string + bytes(-len(string) % 4), "<u4").tolist()]
    y, z = reader.decode_symbols(model, stream)
    pixels = reader.decode_pixels(model, stream, y)
    yield f"String 0 is the words {', '.join(words)}. Opened, the state is `{stack.state:x}` and {len(stack.words)} "
    yield f"words are left. z has the shape {list(z.shape)} and the symbols {z.ravel().tolist()}. ŷ has the shape "
    yield f"{list(y.shape)} and is {y[:, 0, 0].tolist()} at its top left position (fixed point, "
    yield f"{reader.fraction(model, model.parts['g_s']['input_grid'])} fraction bits). "
    yield f"The pixel is {pixels[0, 0].tolist()}."


def _artifact(data: bytes) -> list[str]:
    header, blobs, _ = reader.read_licq(data)
    length, listing = int.from_bytes(data[6:10], "little"), Listing(data)
    listing.take(4, "magic, `LICQ`")
    listing.take(2, "version 2: no widths depend on the image")
    listing.take(4, f"the header has {length} bytes")
    listing.take(length, f"the header: `{data[10:42].decode()}…`", 16)
    names = list(named_blobs(header))
    for i, blob in enumerate(blobs[:6]):
        name, record = names[i]
        kind = record.get("dtype", f"{record.get('bits')}-bit weights")
        listing.take(len(blob), f"blob {i}, {kind}: `{name}`", 16)
    rest = sum(map(len, blobs[6:]))
    listing.take(rest, f"blobs 6 to {len(blobs) - 1}", 4)
    listing.take(32, "SHA-256 of everything before; the first 8 bytes are the identity")
    assert listing.at == len(data)
    return listing.lines


def named_blobs(record: object, path: str = "") -> Iterator[tuple[str, dict]]:
    """(where it stands in the header, the reference) of every blob, in the order of their indices."""
    found = dict(_references(record, path))
    for index in sorted(found):
        yield found[index]


def _references(record: object, path: str) -> Iterator[tuple[int, tuple[str, dict]]]:
    if isinstance(record, dict):
        if type(record.get("blob")) is int:
            yield record["blob"], (path.lstrip("."), record)
        for key, value in record.items():
            yield from _references(value, f"{path}.{key}")
    elif isinstance(record, list):
        for i, value in enumerate(record):
            yield from _references(value, f"{path}[{value.get('name', i) if isinstance(value, dict) else i}]")


def _weights(model: reader.Model) -> Iterator[str]:
    """The smallest packed weights that have a histogram, field by field."""
    packed = [(name, ref) for name, ref in named_blobs(model.header) if "bits" in ref]
    name, ref = min(packed, key=lambda pair: (model.blobs[pair[1]["blob"]][0] == 8, len(model.blobs[pair[1]["blob"]])))
    blob, shape = model.blobs[ref["blob"]], ref["shape"]
    yield f"Blob {ref['blob']}, `{name}`, holds {' × '.join(map(str, shape))} weights of {ref['bits']} bits:"
    yield ""
    listing = Listing(blob)
    low = listing.take(1, f"low = {blob[0]}: raw bits of each value")[0]
    if low < ref["bits"]:
        kind = listing.take(1, "one class" if blob[1] == 0 else f"classes, s = {blob[1] - 1}")[0]
        count = 1
        if kind:
            for i, size in enumerate((*[*shape, 1, 1][:2], prod(shape[2:]))):
                values, end = reader.rice(blob, listing.at, size)
                listing.take(end - listing.at, f"levels of axis {i}, Rice with k = {blob[listing.at]}", 16)
            count = int(reader.weight_classes(blob, 1, shape)[0].max()) + 1
        listing.take(1, f"t: {blob[listing.at]} mantissa bits of the counts")
        sizes = 0
        for what in ("first bins", "numbers of bins"):
            values, end = reader.rice(blob, listing.at, count)
            sizes = int(values.sum())
            listing.take(end - listing.at, f"{what}: {_short(values)}", 16)
        values, end = reader.rice(blob, listing.at, sizes)
        listing.take(end - listing.at, f"counts, as differences: {_short(reader.signed(values))}", 16)
    weights = model.weights(ref).ravel()
    listing.take(len(blob) - listing.at, f"the stack; the weights are {_short(weights)}", 16)
    yield from listing.lines


def _tables(model: reader.Model) -> Iterator[str]:
    index = model.tables["z"]["blob"]
    blob, listing = model.blobs[index], Listing(model.blobs[index])
    count = int.from_bytes(blob[:4], "little")
    yield f"Blob {index}, `tables.z`:"
    yield ""
    listing.take(4, f"{count} tables")
    for what in ("lengths", "offsets", "sizes of the frequencies in bytes"):
        values, end = reader.rice(blob, listing.at, count)
        shown = reader.signed(values) if what == "offsets" else values
        listing.take(end - listing.at, f"{what}: {_short(shown)}", 16)
    lengths = reader.rice(blob, 4, count)[0]
    values, end = reader.rice(blob, listing.at, int(lengths[0]))
    inside = np.cumsum(reader.signed(values))
    left = 65536 - int(inside.sum())
    listing.take(end - listing.at, f"frequencies of table 0: {_short(inside)}, and {left} of the escape", 16)
    listing.take(len(blob) - listing.at, "frequencies of the others", 4)
    yield from listing.lines


def _short(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:8].tolist()))
    return f"{shown}, …" if len(values) > 8 else shown


def page_with(text: str, example_text: str) -> str:
    """The page with the example between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + example_text + END + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into docs/formats.md")
    text = "\n".join(example()) + "\n"
    if parser.parse_args().write:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
