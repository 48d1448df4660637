"""The simulated dynamic network, its choices included, equals the dynamic program, exactly; what its file costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.dynamic.lowering import lower_dynamic
from licquant.dynamic.stages import dynamic_plan
from licquant.lower import latent_tables
from licquant.models.trace import trace_model
from licquant.program.chain import Chain
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.quant.calibrate import collect_statistics
from licquant.quant.simulation import simulate_exactly
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_networks import insert_dynamic, random_selectors
from tests.equivalence.test_openvino_engine import sqnr
from tests.models_for_tests import hand_made, small_hyperprior, small_model

MODELS = {
    "hyperprior": small_hyperprior,
    "hand-made": hand_made,
    "attention": lambda: small_model("cheng2020-attn"),
}
WIDTHS = {"hyperprior": (6, 8, 10), "hand-made": (4, 6, 8), "attention": (5, 8)}


def lowered(model, widths, seed=0):
    """(dynamic model, selectors, program, dynamic parts, traced); the selectors' random weights make choices differ."""
    traced = trace_model(model)
    statistics = collect_statistics(traced, dead_leaves(2, 128))
    network = insert_dynamic(traced, widths, statistics)
    selectors = random_selectors(network, statistics, seed)
    return network, selectors, *lower_dynamic(network, selectors), traced


@pytest.fixture(scope="module", params=MODELS)
def found(request):
    return lowered(MODELS[request.param](), WIDTHS[request.param])


def inputs(part, count=4):
    """Images for g_a, latents of several spreads for g_s: [C, H, W] stored integers."""
    if part.name == "g_a":
        return [np.moveaxis(image // (1 + k), -1, 0) for k, image in enumerate(dead_leaves(count, 64, seed=2))]
    rng = np.random.default_rng(0)
    unit = round(1 / part.input_grid.scale[0])
    return [rng.integers(-2 * k, 2 * k + 1, (part.input_grid.channels, 5, 6)) * unit for k in range(1, count + 1)]


def test_choices_and_outputs_equal_the_simulation(found):
    network, selectors, _, dynamic, _ = found
    for name, part in dynamic.items():
        simulated, chain = network.networks[name], Chain(part, ExactEngine)
        for q in inputs(part.part):
            first = chain.start(q)
            widths = chain.choose(q if chain.selects_by_input else first)
            computed = chain.finish(first, widths) - part.part.output_grid.zero_point[:, None, None]

            entering = torch.from_numpy(q - part.part.input_grid.zero_point[:, None, None])[None]
            value = simulate_exactly(simulated.stages[0].widest, entering)
            chosen = selectors[name].choice(entering if chain.selects_by_input else value)[0]
            assert tuple(of.widths[k] for of, k in zip(simulated.adaptive, chosen, strict=True)) == widths
            for stage, width in zip(simulated.stages[1:], widths, strict=True):
                value = simulate_exactly(stage.parts[width], value)
            np.testing.assert_array_equal(value[0].numpy(), computed, err_msg=name)


def test_every_width_of_every_stage_equals_the_simulation(found):
    network, _, _, dynamic, _ = found
    for name, part in dynamic.items():
        q = inputs(part.part, 1)[0]
        for simulated, stage in zip(network.networks[name].stages, part.stages, strict=True):
            following = None
            for width, piece in stage.parts.items():
                zero = piece.input_grid.zero_point[:, None, None], piece.output_grid.zero_point[:, None, None]
                following = ExactEngine(piece).run(q)
                found_here = simulate_exactly(simulated.parts[width], torch.from_numpy(q - zero[0])[None])[0].numpy()
                np.testing.assert_array_equal(found_here, following - zero[1], err_msg=f"{stage.name} at {width}")
            q = following


def test_the_fast_engine_chooses_alike_and_stays_close(found):
    _, _, _, dynamic, _ = found
    for part in dynamic.values():
        exact, fast = Chain(part, ExactEngine), Chain(part, lambda piece: OpenVinoEngine(piece, 1))
        for q in inputs(part.part, 2):
            choices = [chain.choose(q if chain.selects_by_input else chain.start(q)) for chain in (exact, fast)]
            assert choices[0] == choices[1]
            widest = tuple(stage.widths[-1] for stage in part.stages[1:])
            reference, other = (chain.finish(chain.start(q), widest) for chain in (exact, fast))
            assert sqnr(reference, other) >= 20, part.part.name


def test_narrower_stages_lose_more(found):
    """Against the widest: each stage alone at each narrower width changes the output, less at more bits."""
    _, _, _, dynamic, _ = found
    part = dynamic["g_s"]
    chain, widths = Chain(part, ExactEngine), part.stages[1].widths
    q = inputs(part.part)[2]
    widest = chain.finish(chain.start(q), widths[-1:] * (len(part.stages) - 1))
    losses = [sqnr(widest, chain.finish(chain.start(q), (w,) * (len(part.stages) - 1))) for w in widths[:-1]]
    assert losses == sorted(losses)
    assert losses[-1] < float("inf")
    assert losses[-1] > 12


def test_choices_differ_between_images(found):
    _, _, _, dynamic, _ = found
    seen = set()
    for part in dynamic.values():
        chain = Chain(part, ExactEngine)
        for q in inputs(part.part, 6):
            seen.add((part.part.name, chain.choose(q if chain.selects_by_input else chain.start(q))))
    assert len(seen) > 2


@pytest.mark.slow
def test_three_widths_cost_a_few_per_cent_of_the_widest_alone():
    """The weights are stored once: a channel count near that of real models, weights of some size."""
    model = small_hyperprior(64, 96)
    _, _, program, dynamic, traced = lowered(model, (4, 6, 8))
    plan = dynamic_plan(traced, 8)
    artifact = Artifact(traced.family, program, latent_tables(traced), plan, dynamic=dynamic)
    size, static = len(artifact.to_bytes()), len(replace(artifact, dynamic={}).to_bytes())
    assert static < size < 1.06 * static
    again = Codec(Artifact.from_bytes(artifact.to_bytes()), bytes(8), threads=1)
    rgb = dead_leaves(1, 128, seed=1)[0]
    assert again.decode(again.encode(rgb)).shape == rgb.shape
