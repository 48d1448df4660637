"""Learning what rounding to nearest gets wrong, by the way of the method that chose the widths."""

from collections.abc import Sequence

from licquant.config import OnProgress
from licquant.images import RGB
from licquant.quant.after_training.rdo_ptq import all_blocks, rdo_ptq
from licquant.quant.after_training.reconstruct import reconstruct
from licquant.quant.network import QuantizedModel
from licquant.quant.settings import Settings


def fit(
    quantized: QuantizedModel, images: Sequence[RGB], method: str, settings: Settings, on_progress: OnProgress
) -> None:
    """Fit a quantized model in place to the images, as many steps as the settings say; none without a λ."""
    steps, lmbda = settings.reconstruction_steps, settings.lmbda
    if not steps or not lmbda:
        return
    if method == "rdo-ptq":  # as many steps, one block after another
        blocks = len(all_blocks(quantized))
        per_block = max(1, steps // blocks)
        total = per_block * blocks
        rdo_ptq(quantized, images, lmbda, per_block, lambda done: on_progress("reconstructing", done, total))
    else:
        reconstruct(quantized, images, lmbda, steps, lambda done: on_progress("reconstructing", done, steps))
