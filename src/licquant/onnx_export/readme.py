"""The README of an exported folder: how its models are joined, for the family at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from licquant.onnx_export.graph import OPSET, QUANTIZED_OPSET

_HEAD = """\
# {family}, model {model}, as ONNX

Written by licquant; licence of the weights: {licence}. Opset {opset}. All tensors that go in and out are integers;
batches are of one image.

| file | |
|---|---|
{files}

`tables.json` has the coding tables: table k holds the symbols from `offsets[k]` to before `ends[k]`, a slot each, and
at the end the escape; slot i lies from `starts[k][i]` to `starts[k][i + 1]` of 2^24. `escapes` has the slots of an
escape's classes. How a string is coded, and what is in a `.lic` file, is said in `docs/formats.md` of licquant, from
"The ANS stack" on; `examples/decode_with_onnxruntime.py` is a whole decoder. What the models promise is said in
`docs/onnx.md`.

`qdq/` has analysis and synthesis once more, with the same inputs and outputs, for devices that look for QuantizeLinear
and DequantizeLinear: float32 between, opset {quantized}. Their pixels may differ a little, and so may the symbols that
analysis chooses; no symbol that is decoded does.

## Decode
"""

_AFTER = """
The image is the top left height × width of `image`.

## Encode

"""

_WHAT = {
    "analysis": "the image, uint8 [1, H, W, 3], to what is coded",
    "synthesis": "symbols to the image, uint8 [1, H, W, 3]",
    "hyper": "symbols of z to {hyper}; integers only",
    "context": "the tables and means of one pass; integers only",
    "channels": "what a group's contexts know of the groups before, and `hyper`; integers only",
    "tables.json": "coding tables, order of coding, fixed points",
}

_ONCE = """
1. Decode string 0 with the tables `z`: symbol [c, row, column] has table c. `z_symbols` is int32 [1, C, h, w],
   h = ⌈height / {stride}⌉, w = ⌈width / {stride}⌉.
2. `index, means = hyper(z_symbols)`.
3. Decode string 1 with the tables `y`: one group, in the order channel, row, column; `index` says the table of each.
4. `image = synthesis(y_symbols, means)`.
"""

_FACTORIZED = """
1. Decode string 0 with the tables `y`: symbol [c, row, column] has table c. `y_symbols` is int32 [1, C, h, w],
   h = ⌈height / {stride}⌉, w = ⌈width / {stride}⌉.
2. `image = synthesis(y_symbols)`.
"""

_PASSES = """
1. Decode string 0 with the tables `z`: symbol [c, row, column] has table c. `z_symbols` is int32 [1, C, h, w],
   h = ⌈height / {stride}⌉, w = ⌈width / {stride}⌉.
2. `hyper = hyper(z_symbols)`. `y_symbols`, `means` and ŷ (`y_hat`) are planes of zeros, int32 [1, C, H, W], of the
   height and width of `hyper`.
3. For each of the `groups` of `order` in `tables.json` (k = 0, 1, …), which has the `channels` from the first number to
   before the second, and for each t that any position has, ascending: the positions of
   t = (column + `step` · row) mod `period`, in raster order, are one pass, and one group of string 1 in the order
   channel, position. `index, means = contextK(neighbours, known, time)`, K being k, with
   * `neighbours`, [1, C · T, 1, P]: channel c · T + i is ŷ of the group's channel c at the position + tap i of `taps`
     (rows down, columns right, at most `margin`; 0 outside of the plane);
   * `known`, [1, L, 1, P]: {known} at the positions;
   * `time`, [1]: t.

   Then ŷ = (symbol << {bits}) + mean there, within ±(2^31 − 1).
4. `image = synthesis(y_symbols, means)`.
"""

_KNOWN = "`hyper`"
_KNOWN_OF_GROUPS = "`hyper`, for k > 0 `channelsK(y_hat, hyper)` with ŷ of the channels of all groups before,"

_ENCODE = """\
`{outputs} = analysis(image)`, for an image of any size.
{then}
"""


def readme(record: dict[str, Any], names: Sequence[str]) -> str:
    """record: the content of ``tables.json``;  names: of the other files in the folder itself."""
    hyper = "what the contexts read" if "order" in record else "the table and the mean of each symbol of y"
    files = "\n".join(f"| `{name}` | {_what(name).format(hyper=hyper)} |" for name in names)
    head = _HEAD.format(**record, opset=OPSET, quantized=QUANTIZED_OPSET, files=files)
    return head + _decoding(record) + _AFTER + _encoding(record)


def _what(name: str) -> str:
    return _WHAT.get(name) or _WHAT[name.removesuffix(".onnx").rstrip("0123456789")]


def _decoding(record: dict[str, Any]) -> str:
    stride = record["stride"]
    if "z" not in record["tables"]:
        return _FACTORIZED.format(stride=stride)
    if "order" not in record:
        return _ONCE.format(stride=stride)
    order, bits = record["order"], record["fraction_bits"]["y_hat"]
    known = _KNOWN if len(order["groups"]) == 1 else _KNOWN_OF_GROUPS
    return _PASSES.format(stride=stride, known=known, bits=bits)


def _encoding(record: dict[str, Any]) -> str:
    if "z" not in record["tables"]:
        return _ENCODE.format(outputs="y_symbols", then="Code them as decoding reads them.")
    if "order" not in record:
        then = "Then `index, _ = hyper(z_symbols)`; code the symbols as decoding reads them."
        return _ENCODE.format(outputs="z_symbols, y_symbols", then=then)
    y, y_hat = record["fraction_bits"]["y"], record["fraction_bits"]["y_hat"]
    symbols = f"`(y - (mean << {y - y_hat}) + {(1 << y) >> 1}) >> {y}`, in 64 bits, with an arithmetic shift."
    then = f"The passes are those of decoding; the symbols of each are\n{symbols}"
    return _ENCODE.format(outputs="z_symbols, y", then=then)
