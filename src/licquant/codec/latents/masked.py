"""A masked convolution at chosen positions of a plane that fills up while it is decoded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from licquant.codec.latents.pointwise import PointwiseLayers, chain, rescaler_of
from licquant.errors import ArtifactError
from licquant.program.arithmetic import Floats, Ints
from licquant.program.exact import FLOAT32_EXACT, exact_product
from licquant.program.ops import Convolution
from licquant.program.part import Part
from licquant.program.rescaler import Centred, exact_dtype


class MaskedConvolution:
    """A part with one convolution over neighbours, and pointwise layers before and after it.

    taps: int64[T, 2], (down, right) of the neighbours that have any weight; the rest are the mask
    grid: of what the convolution reads
    """

    def __init__(self, part: Part) -> None:
        """Raises ``ArtifactError`` if the part is anything else."""
        operations = chain(part)
        spatial = [i for i, op in enumerate(operations) if isinstance(op, Convolution) and op.kernel != (1, 1)]
        if len(spatial) != 1:
            raise ArtifactError(f"{part.name}: a context needs one convolution over neighbours, not {len(spatial)}")
        at = spatial[0]
        op = operations[at]
        assert isinstance(op, Convolution)
        if op.stride != 1 or op.groups != 1 or any(k != 2 * op.padding + 1 for k in op.kernel):
            raise ArtifactError(f"{op.name}: a context's convolution keeps the size of its plane")
        self.margin, self.channels = op.padding, op.weight.shape[1]
        mask = op.weight.any(axis=(0, 1))
        if not mask.any():  # of no weight: any neighbour before the position will do
            mask[op.padding, op.padding - 1] = True
        self.taps: Ints = np.argwhere(mask) - op.padding
        self._weight = op.weight[:, :, mask].transpose(0, 2, 1)  # O, taps, C
        self.grid = operations[at - 1].grid if at else part.input_grid
        self._bound = op.bound([self.grid])
        self._before = PointwiseLayers(operations[:at], part.input_grid)
        self._rescale = rescaler_of(op, self._bound)
        self._after = PointwiseLayers(operations[at + 1 :], op.grid)

    def read(self, latent: Ints) -> Centred:
        """ŷ [C, P], whose zero point is 0, as the convolution reads it."""
        return self._before(latent.astype(np.float64))

    def share(self, chosen: Ints) -> Callable[[Floats], Floats]:
        """What some taps (by index) add to the accumulator: neighbours [P, taps · C] to [O, P]; exact, also the sum."""
        weight = self._weight[:, chosen].reshape(len(self._weight), -1)
        product = exact_product(weight, np.tile(self.grid.magnitude, len(chosen)))
        dtype = np.float32 if self._bound < FLOAT32_EXACT else np.float64
        return lambda neighbours: product(neighbours.T).astype(dtype, copy=False)

    def finish(self, acc: Floats) -> Centred:
        """The part's centred output [O', P] for the sum of all shares."""
        return self._after(self._rescale(acc))


class Plane:
    """What has been decoded of ŷ, as the convolution reads it: position by position, with a margin of zeros."""

    def __init__(self, convolution: MaskedConvolution, height: int, width: int) -> None:
        self._convolution, margin = convolution, convolution.margin
        pitch = width + 2 * margin
        places = np.arange((height + 2 * margin) * pitch).reshape(-1, pitch)
        self._places = places[margin : margin + height, margin : margin + width].ravel()
        self._offsets = convolution.taps @ np.array([pitch, 1])
        self._values: Floats = np.zeros((places.size, convolution.channels), dtype=exact_dtype(convolution.grid))

    def put(self, positions: Ints, latent: Ints) -> None:
        """ŷ [C, P] at flat positions [P]."""
        self._values[self._places[positions]] = self._convolution.read(latent).T

    def neighbours(self, positions: Ints, chosen: Ints) -> Floats:
        """[P, taps · C]: what the chosen taps read at flat positions [P]; 0 where nothing is decoded yet."""
        places = self._places[positions][:, None] + self._offsets[chosen]
        return self._values.take(places.ravel(), axis=0, mode="clip").reshape(len(positions), -1)
