"""How curved the rate-distortion loss is in the weights of each layer: the importance of a layer in HAMP-LIC.

HAMP-LIC (arXiv 2608.12239) gives layer l with b-bit weights the importance

    Ω_l(b) = Tr(H_l) · |J_l(b) - J_int8| / |J_int8|

with H_l the Hessian of the loss J in the layer's weights, its trace estimated by Hutchinson's method (5 Rademacher
vectors, 12 samples in batches of 4), and minimises Σ Ω under a bit budget. Where we differ: J_l(b) is the loss of the
float model with only layer l quantized (the sensitivity table that all methods share), not of the int8 model with one
layer changed; and the budget counts parameters or file bytes, not layers, so a large layer costs what it weighs.

H is the Hessian of what training differentiates: the latents and the pixels are rounded, and their rounding errors held
constant; a latent's rate has the mean slope over the unit around it (``dataflow.bits_of_rounded``). (The true J is
piecewise constant in them: its Hessian is 0 almost everywhere.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from licquant.config import check_lmbda
from licquant.models.graph import INPUT, NORMALIZATION, Step, apply_slope, run_float
from licquant.models.trace import TracedModel
from licquant.quant.dataflow import Run
from licquant.quant.layers import QuantizedLayer
from licquant.quant.rd import evaluate

BATCH = 4  # crops whose second derivatives are in memory at a time
VECTORS = 5

Weights = Mapping[str, Tensor]  # layer → its weights as they are quantized (GDN: the reparametrised gamma)


def weight_hessian_traces(
    traced: TracedModel,
    crops: Tensor,
    lmbda: float,
    on_step: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Layer → an unbiased estimate of the trace of the Hessian of J = R + λ·255²·MSE in the layer's weights.

    crops: [B, 3, H, W] in [0, 1], sides in 64s; J is their mean, computed ``BATCH`` at a time, each with ``VECTORS``
           Rademacher vectors; ``on_step`` hears how many of ceil(B / BATCH) · VECTORS are done

    The unit is that of J, bits per pixel, per squared weight. An estimate, and the trace itself, can be negative.
    """
    check_lmbda(lmbda)
    layers = {step.name: QuantizedLayer(step, 8) for step in traced.layers if step.has_weights}
    weights = {name: layer.weight for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(0)
    totals = dict.fromkeys(weights, 0.0)
    done = 0
    for batch in crops.split(BATCH):
        loss = evaluate(traced, run_layers(traced, layers), batch).loss(lmbda)
        products = hutchinson(loss, weights, VECTORS, generator)
        for found in products:
            for name, value in found.items():
                totals[name] += value * len(batch) / (len(crops) * VECTORS)
            done += 1
            on_step(done)
    return totals


def hutchinson(loss: Tensor, weights: Weights, vectors: int, generator: torch.Generator) -> Iterator[dict[str, float]]:
    """For each of ``vectors`` random sign vectors v over all weights at once: name → v_l·(Hv)_l.

    Its expectation is Tr(H_l), since E[v vᵀ] = 1 (Hutchinson 1989), whatever the other layers' weights do: they only
    add variance, and one product with H serves every layer. ``loss``: a scalar with a twice differentiable graph.
    """
    values = list(weights.values())
    gradients = torch.autograd.grad(loss, values, create_graph=True)
    for _ in range(vectors):
        signs = [torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) * 2 - 1 for w in values]
        products = torch.autograd.grad(gradients, values, signs, retain_graph=True)
        yield {n: float((v * p).sum()) for n, v, p in zip(weights, signs, products, strict=True)}


def run_layers(traced: TracedModel, layers: Mapping[str, QuantizedLayer]) -> Run:
    """Parts in floating point, with the weights of ``layers``, which carry gradients, in place of the model's."""

    def run(name: str, value: Tensor) -> Tensor:
        tensors = {INPUT: value}
        for step in traced.graphs[name]:
            inputs = [tensors[n] for n in step.inputs]
            tensors[step.name] = (
                _apply(step, layers[step.name], inputs[0]) if step.has_weights else run_float(step, inputs)
            )
        return tensors[traced.graphs[name].output]

    return run


def _apply(step: Step, layer: QuantizedLayer, x: Tensor) -> Tensor:
    if step.kind == NORMALIZATION:
        return layer.normalized(x, layer.accumulate(layer.operand(x), layer.weight, layer.bias))
    return apply_slope(layer.accumulate(x, layer.weight, layer.bias), step.negative_slope)


def omega(trace: float, loss_at_bits: float, loss_int8: float) -> float:
    """Ω_l(b) = |Tr(H_l)| · |J_l(b) - J_int8| / |J_int8|, the equation at the top; all losses in bits per pixel, J > 0.

    The trace's magnitude, unlike the paper: an estimate may come out negative, and would then reward a loss.
    """
    return abs(trace) * abs(loss_at_bits - loss_int8) / abs(loss_int8)
