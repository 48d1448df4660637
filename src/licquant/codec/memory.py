"""What coding an image takes in memory: an upper bound, known before any of it is taken.

    bytes  =  fixed(model)  +  pixels · growing(model)

A large image has regions (``regions.py``): all but its pixels and y grows with the largest of those only.

fixed:   a part runs on one piece of the image at a time (``tiling.py``): its tensors there, and what an operation needs
         beside them; and ``_WORK``, once more for every further thread
growing: the pixels; of every element of the latents its symbol, its table, its place in the order of coding and its
         value; of every position what its Gaussian parameters are made from

For the embedded models on OpenVINO, images of more than one piece: 0.9 GB and 49 bytes a pixel to decode, 1.4 GB and
61 bytes to encode; images of more than one region 1.2 to 1.7 GB and 12 bytes. What an artifact itself may hold is
limited in ``files/blobs.py``.
"""

from __future__ import annotations

from licquant.codec.tiling import LATENT_TILE, TILE_PIXELS, largest_piece
from licquant.program.part import INPUT, Part, Program

MAX_MEMORY = 8 << 30  # bytes: what one image may take, unless ``load`` is told otherwise

_PIXEL = 6  # bytes: three samples, and once more where the sides are cut to the image's
_ELEMENT = 48  # of a latent
_VALUE = 8  # of what h_s writes, and twice in what is made of that
_EXACT, _FAST = 40, 8  # an element that an operation reads or writes, in NumPy and on OpenVINO
_KEPT = 8  # an element that waits for a later operation
_WORK = 64 << 20  # gathered inputs of convolutions
_ENCODER, _SYNTHESIS = ("g_a", "h_a"), "g_s"


def image_bytes(
    program: Program, strides: tuple[int, int], size: tuple[int, int], region: tuple[int, int], fast: bool, encode: bool
) -> int:
    """Bytes that encoding or decoding takes at most, beside the image given and the model itself.

    strides: pixels per element of y, and of the latent that is coded first
    size:    (height, width) in pixels, multiples of the latter
    region:  the same of the largest region that is coded at a time (``regions.py``): ``size`` if there is one only
    fast:    whether the parts that need not be exact run on OpenVINO
    """
    whole = size[0] // strides[0], size[1] // strides[0]
    latent, coded = ((region[0] // stride, region[1] // stride) for stride in strides)
    positions = latent[0] * latent[1]
    channels = program[_SYNTHESIS].input_grid.channels
    elements = channels * positions
    growing, pieces = _PIXEL * size[0] * size[1] + _KEPT * channels * (whole[0] * whole[1] - positions), [0]
    if "h_s" in program:
        elements += program["h_s"].input_grid.channels * coded[0] * coded[1]
    for name, part in program.items():
        if name in _ENCODER:
            read, tile = (size, TILE_PIXELS // strides[0]) if name == "g_a" else (latent, max(coded))
            if encode:
                pieces.append(part_bytes(part, read, tile, _FAST if fast else _EXACT))
        elif name == _SYNTHESIS:
            pieces.append(part_bytes(part, whole, TILE_PIXELS, _FAST if fast else _EXACT))
        else:
            kept = [part.output_grid] if name == "h_s" else [part.input_grid, *(op.grid for op in part.operations)] * 2
            growing += _VALUE * sum(grid.channels for grid in kept) * positions
            pieces.append(part_bytes(part, coded if name == "h_s" else latent, LATENT_TILE, _EXACT))
    # OpenVINO keeps the buffers of every part that it has run.
    return growing + _ELEMENT * elements + (sum(pieces) if fast else max(pieces)) + _WORK


def part_bytes(part: Part, size: tuple[int, int], tile: int, element: int) -> int:
    """Bytes of running a part for an input of that size, in pieces of at most tile × tile of its output.

    element: bytes for each that an operation reads or writes
    """
    sizes = part.sizes((largest_piece(part, size[0], tile), largest_piece(part, size[1], tile)))
    grids = {INPUT: part.input_grid, **{op.name: op.grid for op in part.operations}}
    counts = {name: grids[name].channels * height * width for name, (height, width) in sizes.items()}
    last_use, most = part.last_use(), 0
    for index, op in enumerate(part.operations):
        used = {*op.inputs, op.name}
        made = [INPUT, *(other.name for other in part.operations[:index])]
        kept = sum(counts[name] for name in made if name not in used and last_use.get(name, -1) > index)
        most = max(most, element * sum(counts[name] for name in used) + _KEPT * kept)
    return most
