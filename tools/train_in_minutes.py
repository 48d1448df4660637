"""Train a model in the minutes that a GPU is there for.

    python -m tools.train_in_minutes MODEL LAMBDA MINUTES --data TRAIN -o OUT.licw [--init CHECKPOINT] [--constant]

``licquant train`` counts steps. On a machine that is there for a time, and whose speed nobody knows, the rate's cosine
has to follow the clock. On CUDA every step is one graph, recorded after a few plain ones: Cheng 2020 computes
1,400 kernels in a step and ELIC 4,200, and launching them one by one takes longer than the GPU needs for them. Several
models trained at once share a GPU well that way. The crops, the losses and the moving average are those of ``licquant
train``; the noise that stands for rounding is drawn without its seeds. Without CUDA the same steps are taken one by
one.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import MaskedConv2d
from torch import Tensor, nn

from licquant.cache import cache_folder
from licquant.errors import TrainingError
from licquant.models.load import read_state
from licquant.train import architectures, card, export, resume
from licquant.train.batches import Crops, ahead
from licquant.train.command import make_fabric
from licquant.train.objective import Noise
from licquant.train.pixels import open_pixels
from licquant.train.settings import Recipe, RunOptions, decay, warm_up
from licquant.train.trainer import Trainer

PLAIN_STEPS = 8  # before a graph is recorded: cuDNN chooses its kernels in them
LOG_EVERY = 100
WARMUP = 200
_ENDLESS = 10**9  # steps: the clock ends a run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("lmbda", type=float)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="checkpoint to start from")
    parser.add_argument("--N", type=int)
    parser.add_argument("--M", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--constant", action="store_true", help="keep the rate: others go on from this model")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Train; write the checkpoint and its card."""
    recipe = Recipe(
        arguments.model, arguments.lmbda, N=arguments.N, M=arguments.M, steps=_ENDLESS, batch=arguments.batch,
        crop=arguments.crop, large_batch=arguments.batch, large_crop=arguments.crop, large_from=0.0,
        learning_rate=arguments.rate, warmup=WARMUP, aux_learning_rate=1e-2, seed=round(arguments.lmbda * 1e4),
    )  # fmt: skip
    options = RunOptions(arguments.data, arguments.output, init=arguments.init)
    weights = None if options.init is None else read_state(options.init)
    widths = architectures.widths_of(recipe.model, weights or {}, recipe.N, recipe.M)
    model = architectures.build(recipe.model, widths, recipe.seed)
    if weights is not None:
        architectures.start_from(model, weights, str(options.init))
    crops = Crops(open_pixels(options.data, cache_folder(None)), recipe)
    without_waiting()
    trainer = GraphTrainer(make_fabric(options), model, recipe)
    seconds = _train(trainer, crops, 60 * arguments.minutes, constant=arguments.constant)
    rate = "constant" if arguments.constant else "a cosine over the time"
    reached = card.Reached(trainer.step, seconds, len(crops.pixels), "; ".join(trainer.made_on))
    options = dataclasses.replace(options, note=f"learning rate: {rate} (tools/train_in_minutes.py)")
    _write(trainer.averaged_state(), dataclasses.replace(recipe, steps=trainer.step), options, widths, reached)


def _train(trainer: "GraphTrainer", crops: Crops, seconds: float, *, constant: bool) -> float:
    """Steps until the time is over; the seconds that they took."""
    begin = time.monotonic()
    steps = ahead(crops, 0, _ENDLESS)
    with trainer.prepared():
        for step, samples in steps:
            passed = time.monotonic() - begin
            if passed >= seconds:
                break
            recipe = trainer.recipe
            rate = recipe.learning_rate * warm_up(recipe, step) * (1.0 if constant else decay(recipe, passed / seconds))
            trainer.go(samples, rate)
            if trainer.step % LOG_EVERY == 0:
                loss, bpp, mse, *_ = trainer.take_means()
                quality = -10 * math.log10(mse)
                print(f"{passed:6.0f} s, step {step + 1}: J {loss:.3f} = {bpp:.3f} bpp, {quality:.2f} dB", flush=True)
    steps.close()
    if not trainer.step:
        raise TrainingError(f"no step was taken in {seconds:g} s")
    trainer.check_finite()
    return time.monotonic() - begin


def _write(
    averaged: Mapping[str, Tensor],
    recipe: Recipe,
    options: RunOptions,
    widths: Mapping[str, int],
    reached: card.Reached,
) -> None:
    state = export.finished_state(recipe.model, widths, averaged)
    files = export.write_checkpoint(options.output, state)
    made = card.make_card(recipe, options, widths, resume.identity(recipe, options), reached)
    card.write_card(options.output, made | card.file_hashes(files))


class GraphTrainer(Trainer):
    """A trainer whose step is one CUDA graph; without CUDA, plain steps."""

    def __init__(self, fabric: Any, model: Any, recipe: Recipe) -> None:
        super().__init__(fabric, model, recipe)
        self.noise = _AnyNoise(recipe.seed, fabric.device)
        self.plain = [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers.values()]
        self.on_gpu = fabric.device.type == "cuda"
        self.rate = torch.zeros((), device=fabric.device)
        for optimizer in self.plain:
            for group in optimizer.param_groups:
                group["capturable"] = self.on_gpu
        self.samples = torch.zeros((recipe.batch, recipe.crop, recipe.crop, 3), dtype=torch.uint8, device=fabric.device)
        self.graph: Any = None

    def go(self, samples: Tensor, rate: float) -> None:
        """Take one step on uint8 B×3×H×W, channels innermost, at a learning rate."""
        innermost = samples.permute(0, 2, 3, 1)
        self.rate.fill_(rate)
        for group in self.plain[0].param_groups:
            group["lr"] = self.rate if self.on_gpu else rate
        self.samples.copy_(innermost.pin_memory() if self.on_gpu else innermost, non_blocking=self.on_gpu)
        if self.graph is not None:
            self.graph.replay()
        elif self.on_gpu:
            self._plain_or_recorded()
        else:
            self._body()
        self.average.update()
        self.step += 1
        self.summed += 1

    def _plain_or_recorded(self) -> None:
        """A plain step beside the default stream, which must come before a recording; later the recording itself."""
        if self.step < PLAIN_STEPS:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._body()
            torch.cuda.current_stream().wait_stream(stream)
            return
        torch.cuda.synchronize()
        for optimizer in self.plain:
            optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._body()
        self.graph = graph
        graph.replay()

    def _body(self) -> None:
        for optimizer in self.plain:
            optimizer.zero_grad(set_to_none=True)
        loss, figures = self.objective(self.samples.permute(0, 3, 1, 2))
        self.fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.recipe.clip)
        for optimizer in self.plain:
            optimizer.step()
        self.sums += torch.cat([figures.detach(), norm.detach()[None]]).double()


class _AnyNoise(Noise):
    """Noise from the device's own generator, which a graph can draw from."""

    def like(self, values: Tensor, samples: int, axis: int) -> Tensor:
        return torch.empty(values.shape, device=values.device).uniform_(-0.5, 0.5)


def without_waiting() -> None:
    """From here on, two of CompressAI's layers compute what they did without waiting for the device or moving weights.

    A permutation read back from the GPU, and a masked kernel laid out anew in each step, cannot be part of a graph.
    """
    EntropyBottleneck.forward = _bottleneck
    MaskedConv2d.forward = _masked


def _bottleneck(self: Any, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
    """CompressAI's ``EntropyBottleneck.forward``: B×C×… → (the same with noise or rounded, likelihoods)."""
    training = self.training if training is None else training
    swapped = [1, 0, *range(2, x.ndim)]
    x = x.permute(swapped).contiguous()
    outputs = self.quantize(x.reshape(x.size(0), 1, -1), "noise" if training else "dequantize", self._get_medians())
    likelihood, _, _ = self._likelihood(outputs)
    if self.use_likelihood_bound:
        likelihood = self.likelihood_lower_bound(likelihood)
    return tuple(value.reshape(x.shape).permute(swapped).contiguous() for value in (outputs, likelihood))


def _masked(self: Any, x: Tensor) -> Tensor:
    """CompressAI's ``MaskedConv2d.forward``, the kernel masked where it lies."""
    self.weight.data.mul_(self.mask)
    return nn.Conv2d.forward(self, x)


if __name__ == "__main__":
    main()
