"""σ and μ of a whole latent at once, as the models' definitions read: slow, and written to be believed.

The coders compute them pass by pass from what is decoded so far. Given the final ŷ, each part is here run once
over the whole plane, by any engine, and must give the same integers: tests and benchmarks hold the coders to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from licquant.codec.latents import families
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.program.arithmetic import Ints
from licquant.program.part import Part, Program

Run = Callable[[Part, Ints], Ints]  # stored integers [C, H, W] through a part


def gaussian_parameters(family: str, program: Program, y_hat: Ints, z_hat: Ints, run: Run) -> tuple[Ints, Ints]:
    """(σ, μ) in fixed point, [M, H, W] each, from ŷ and ẑ as g_s and h_s read them; any family but factorized."""
    hyper = run(program["h_s"], z_hat)
    match family:
        case families.SCALE_HYPERPRIOR:
            return hyper, np.zeros_like(hyper)
        case families.MEAN_SCALE_HYPERPRIOR:
            both = hyper
        case families.AUTOREGRESSIVE:
            context = run(program["context_prediction"], y_hat)
            both = run(program["entropy_parameters"], np.concatenate([hyper, context]))
        case families.CHECKERBOARD:
            both = _checkerboard(program["context_prediction"], program["entropy_parameters"], y_hat, [hyper], run)
        case families.CHANNEL_GROUPS:
            return _channel_groups(program, y_hat, hyper, run)
        case _:
            raise ValueError(f"the family {family} has no Gaussian parameters")
    sigma, mean = np.split(both, 2)
    return sigma, mean


def coded_parameters(coder: GaussianCoder, y_hat: Ints, z: Ints) -> tuple[Ints, Ints]:
    """(σ, μ), int64 [M, H, W] each, as the coder's own passes compute them on the way to ŷ; z: symbols."""
    flat = y_hat.reshape(len(y_hat), -1)
    sigma, mean = np.zeros((2, *flat.shape), dtype=np.int64)

    def code(channels: slice, positions: Ints | slice, of_pass: Ints, mean_of_pass: Ints | int) -> Ints:
        sigma[channels, positions], mean[channels, positions] = of_pass, mean_of_pass
        return flat[channels, positions]

    coder.code_passes(coder.synthesise_hyper(coder.hyper.restore(z)), code)
    return sigma.reshape(y_hat.shape), mean.reshape(y_hat.shape)


def _checkerboard(context: Part, parameters: Part, y_hat: Ints, known: Sequence[Ints], run: Run) -> Ints:
    """Anchors with a context that means 0, the others with the anchors as theirs."""
    anchor = np.indices(y_hat.shape[1:]).sum(axis=0) % 2 == 0
    of_anchors = run(context, np.where(anchor, y_hat, 0))
    nothing = np.broadcast_to(context.output_grid.zero_point[:, None, None], of_anchors.shape)
    first, second = (run(parameters, np.concatenate([c, *known])) for c in (nothing, of_anchors))
    return np.where(anchor, first, second)


def _channel_groups(program: Program, y_hat: Ints, hyper: Ints, run: Run) -> tuple[Ints, Ints]:
    """Each group of channels a checkerboard, with a context from all groups before it."""
    sigmas, means, k, first = [], [], 0, 0
    while first < len(y_hat):
        spatial = program[f"spatial_context.y{k}"]
        known = [hyper]
        if k:
            known = [run(program[f"channel_context.y{k}"], y_hat[:first]), hyper]
        group = y_hat[first : first + spatial.input_grid.channels]
        both = _checkerboard(spatial, program[f"entropy_parameters.y{k}"], group, known, run)
        sigma, mean = np.split(both, 2)
        sigmas.append(sigma)
        means.append(mean)
        k, first = k + 1, first + len(group)
    return np.concatenate(sigmas), np.concatenate(means)
