"""Gradients of layers as the trainer lays them out against float64: run as a program, since a crash is a failure.

    python -m tests.unit.models.gradients_of_layers pointwise|registered [--unmended]

The largest error may be 1e-4 of the largest gradient in float32, 3 % in bfloat16, whose digits end at 0.4 %.
"""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from licquant.models.kernels import channels_innermost
from licquant.train import architectures

TOLERANCES = {False: 1e-4, True: 3e-2}  # in bfloat16 or not
SIDES = {"pointwise": (64,), "registered": (32,)}
BATCH = 4


def pointwise() -> Iterator[nn.Module]:
    """Strided 1x1 convolutions of few inputs: where oneDNN#6035 writes past its memory."""
    for stride in (2, 3):
        for inputs in (1, 2, 3, 4, 8, 12, 15, 16):
            yield nn.Conv2d(inputs, 64, 1, stride)


def registered() -> Iterator[nn.Module]:
    """Every kind of layer of every model that can be trained, at its usual widths: each kind once."""
    seen = set()
    for name in architectures.names():
        model = architectures.build(name, architectures.resolve_widths(name, None, None))
        for layer in model.modules():
            if type(layer) in (nn.Conv2d, nn.ConvTranspose2d):
                kind = (
                    type(layer), layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                    layer.output_padding, layer.groups,
                )  # fmt: skip
                if kind not in seen:
                    seen.add(kind)
                    more = {"output_padding": kind[6]} if kind[0] is nn.ConvTranspose2d else {}
                    yield kind[0](*kind[1:4], kind[4], kind[5], groups=kind[7], **more)


def gradients(layer: nn.Module, x: Tensor, outer: Tensor | None, reduced: bool) -> tuple[Tensor, list[Tensor]]:
    """(output, gradients of input, weight and bias) for the gradient ``outer`` of the output, else a random one."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        y = layer(x)
    outer = torch.randn_like(y) if outer is None else outer
    found = torch.autograd.grad(y, [x, *layer.parameters()], outer.to(y.dtype))
    return outer, [value.double() for value in found]


def worst(layer: nn.Module, side: int, mended: bool) -> dict[bool, float]:
    """The largest error, relative to the largest gradient, in each precision."""
    x = torch.randn(BATCH, layer.in_channels, side, side)
    exact = type(layer)(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, groups=layer.groups,
        **({"output_padding": layer.output_padding} if isinstance(layer, nn.ConvTranspose2d) else {}),
    ).double()  # fmt: skip
    exact.load_state_dict(layer.state_dict())
    outer, wanted = gradients(exact, x.double(), None, False)
    laid_out = nn.Sequential(layer)
    if mended:
        channels_innermost(laid_out)
    else:
        laid_out.to(memory_format=torch.channels_last)
    errors = {}
    for reduced in TOLERANCES:
        innermost = x.contiguous(memory_format=torch.channels_last)
        _, found = gradients(laid_out, innermost, outer.float().contiguous(memory_format=torch.channels_last), reduced)
        errors[reduced] = max(
            float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(found, wanted, strict=True)
        )
    return errors


def main() -> int:
    kinds = {"pointwise": pointwise, "registered": registered}
    which, mended = sys.argv[1], "--unmended" not in sys.argv
    torch.manual_seed(0)
    count = 0
    for side in SIDES[which]:
        for layer in kinds[which]():
            errors = worst(layer, side, mended)
            count += 1
            if any(error > TOLERANCES[reduced] for reduced, error in errors.items()):
                sys.stdout.write(f"{layer}, side {side}: {errors}\n")
                return 1
    sys.stdout.write(f"{count} layers\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
