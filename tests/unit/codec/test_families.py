"""Every family with random programs: latents come back, σ and μ are those of the whole parts, bad input is refused."""

import functools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.latent_reference import coded_parameters, gaussian_parameters
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.codec.latents import families
from licquant.codec.latents.families import latent_coder
from licquant.codec.latents.gaussian import LatentWriter
from licquant.config import LayerBits, Plan
from licquant.errors import ArtifactError, BitstreamError
from licquant.program import reference
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import Convolution
from licquant.program.part import Part, Program
from licquant.quant.synthetic import dead_leaves
from tests.latent_programs import FAMILIES, LATENT, random_latents, random_program, random_tables

GAUSSIAN = [family for family in FAMILIES if family != families.FACTORIZED]
PLANAR = [families.AUTOREGRESSIVE, families.CHECKERBOARD, families.CHANNEL_GROUPS]
SIZES = [(1, 1), (1, 4), (5, 1), (2, 3)]


@functools.cache
def made(family, seed=0, bits=8):
    program = random_program(family, seed=seed, bits=bits)
    return program, latent_coder(family, program, random_tables(program, family))


def coded_size(family, size):
    """Of the latent that is coded first."""
    return size if family != families.FACTORIZED else (4 * size[0], 4 * size[1])


class Recorder(LatentWriter):
    """Keeps σ and μ of every element as the passes give them."""

    def __init__(self, quantizer, y):
        super().__init__(quantizer, y)
        self.sigma, self.mean = np.full(y.shape, -(2**40)), np.full(y.shape, -(2**40))
        self.passes = 0

    def __call__(self, channels, positions, sigma, mean):
        for whole, part in ((self.sigma, sigma), (self.mean, mean)):
            found = whole.reshape(len(whole), -1)
            assert (found[channels, positions] == -(2**40)).all(), "an element is coded twice"
            found[channels, positions] = part
        self.passes += 1
        return super().__call__(channels, positions, sigma, mean)


def recorded(coder, y, z):
    recorder = Recorder(coder.quantizer, y)
    coder.code_passes(coder.synthesise_hyper(coder.hyper.restore(z)), recorder)
    return recorder


def exact(part, q):
    return ExactEngine(part).run(q)


# --- what is coded comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_latent_is_recovered(family, size):
    program, coder = made(family)
    y, z = random_latents(program, size)
    y_hat, found = coder.quantize(y, z), coder.decode(coder.encode(y, z), coded_size(family, size))
    np.testing.assert_array_equal(found[0], y_hat)
    np.testing.assert_array_equal(found[1], z.reshape(found[1].shape))
    fraction = 0 if family == families.SCALE_HYPERPRIOR else LATENT
    assert abs((y_hat.astype(np.int64) << (LATENT - fraction)) - y).max() <= 128, "quantization moves y by 1/2 at most"


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize("family", PLANAR)
def test_every_latent_is_recovered_at_other_widths(family, bits):
    program, coder = made(family, 1, bits)
    y, z = random_latents(program, (2, 2))
    passes = recorded(coder, y, z)
    np.testing.assert_array_equal(coder.decode(coder.encode(y, z), (2, 2))[0], passes.y_hat)
    whole = gaussian_parameters(family, program, passes.y_hat, coder.hyper.restore(z), exact)
    np.testing.assert_array_equal(passes.sigma, whole[0])
    np.testing.assert_array_equal(passes.mean, whole[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_far_outside_the_tables_survive(family):
    program, coder = made(family)
    y, z = random_latents(program, (1, 2))
    y[:, ::3, 1] = 2**31 - 1
    y[:, 1, ::2] = -(2**31) + 1
    z[:, :, 0] = [[2**31 - 1]]
    y_hat, found = coder.quantize(y, z), coder.decode(coder.encode(y, z), coded_size(family, (1, 2)))
    np.testing.assert_array_equal(found[0], y_hat)
    if family != families.FACTORIZED:
        np.testing.assert_array_equal(found[1], z)
        assert abs((y_hat.astype(np.int64) << (LATENT - coder.quantizer.output_bits)) - y).max() <= 128


@pytest.mark.parametrize("family", FAMILIES)
def test_size_is_close_to_the_entropy(family):
    program, coder = made(family)
    y, z = random_latents(program, (3, 4))
    bits = sum(float(of_part.sum()) for of_part in coder.element_bits(coder.quantize(y, z), z))
    assert abs(8 * sum(map(len, coder.encode(y, z))) - bits) <= 0.001 * bits + 64


# --- σ and μ are the model's --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", GAUSSIAN)
def test_parameters_of_the_passes_are_those_of_the_whole_parts(family, size):
    program, coder = made(family)
    y, z = random_latents(program, size, seed=3)
    passes = recorded(coder, y, z)
    whole = gaussian_parameters(family, program, passes.y_hat, coder.hyper.restore(z), exact)
    np.testing.assert_array_equal(passes.sigma, whole[0])
    np.testing.assert_array_equal(passes.mean, whole[1])


@pytest.mark.parametrize("family", GAUSSIAN)
def test_parameters_are_those_of_the_slow_reference(family):
    program, coder = made(family, 2)
    y, z = random_latents(program, (1, 2), seed=4)
    passes = recorded(coder, y, z)
    whole = gaussian_parameters(family, program, passes.y_hat, coder.hyper.restore(z), reference.run)
    np.testing.assert_array_equal(passes.sigma, whole[0])
    np.testing.assert_array_equal(passes.mean, whole[1])
    for one, other in zip(coded_parameters(coder, passes.y_hat, z), (passes.sigma, passes.mean), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.unique(coder.tables.level(passes.sigma)).size > 5, "one table for everything: this would prove nothing"


@pytest.mark.parametrize(
    ("family", "passes"),
    [
        (families.SCALE_HYPERPRIOR, 1),
        (families.MEAN_SCALE_HYPERPRIOR, 1),
        (families.AUTOREGRESSIVE, 12 + 3 * 7),  # columns, and the 5×5 kernel's step for every further row
        (families.CHECKERBOARD, 2),
        (families.CHANNEL_GROUPS, 4),
    ],
)
def test_number_of_passes(family, passes):
    program, coder = made(family)
    assert recorded(coder, *random_latents(program, (2, 3))).passes == passes


def test_blocks_of_positions_do_not_change_the_result(monkeypatch):
    program, coder = made(families.CHECKERBOARD)
    y, z = random_latents(program, (3, 3))
    strings = coder.encode(y, z)
    monkeypatch.setattr("licquant.codec.latents.spatial._LARGEST_PIECE", 7)
    assert coder.encode(y, z) == strings


_STRINGS = """
import hashlib
from licquant.codec.latents.families import latent_coder
from tests.latent_programs import FAMILIES, random_latents, random_program, random_tables
for family in FAMILIES:
    program = random_program(family, 24, 48, groups=(16, 32))
    coder = latent_coder(family, program, random_tables(program, family))
    strings = coder.encode(*random_latents(program, (3, 5)))
    print(family, hashlib.sha256(b"".join(strings)).hexdigest())
"""


def test_threads_and_kernels_do_not_change_the_strings():
    settings = [
        {"OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2"},
        {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"},
    ]
    command = [sys.executable, "-c", _STRINGS]
    path = os.pathsep.join(filter(None, sys.path))
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS",)}
    found = [
        subprocess.run(command, env={**plain, "PYTHONPATH": path, **s}, capture_output=True, text=True, check=True)
        for s in settings
    ]
    assert len(found[0].stdout.splitlines()) == len(FAMILIES)
    assert len({process.stdout for process in found}) == 1


# --- hostile strings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_strings_are_refused(family):
    program, coder = made(family)
    strings = coder.encode(*random_latents(program, (1, 2)))
    for index, string in enumerate(strings):
        for length in range(0, len(string), max(1, len(string) // 40)):
            cut = [*strings[:index], string[:length], *strings[index + 1 :]]
            with pytest.raises(BitstreamError):
                coder.decode(tuple(cut), coded_size(family, (1, 2)))


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_strings_raise_nothing_else(family):
    program, coder = made(family)
    size = coded_size(family, (1, 1))
    strings = coder.encode(*random_latents(program, (1, 1)))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        broken = [bytearray(string) for string in strings]
        for string in broken:
            string[rng.integers(len(string))] = rng.integers(256)
        try:
            coder.decode(tuple(map(bytes, broken)), size)
        except BitstreamError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("family", FAMILIES)
def test_claimed_sizes_are_refused_before_memory_is_spent(family):
    program, coder = made(family)
    strings = coder.encode(*random_latents(program, (1, 1)))
    for size in ((1 << 14, 1 << 14), (1, 1 << 20), (2, 3)):
        with pytest.raises(BitstreamError):
            coder.decode(strings, coded_size(family, size))
    with pytest.raises(BitstreamError, match="strings instead of"):
        coder.decode((*strings, b""), coded_size(family, (1, 1)))


# --- artifacts and images -----------------------------------------------------------------------------------


def artifact(family, program=None):
    program = program or made(family)[0]
    return Artifact(family, program, random_tables(made(family)[0], family), Plan({"g_a.0": LayerBits(8, 8)}))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_survive_a_stored_artifact(family):
    data = artifact(family).to_bytes()
    assert Artifact.from_bytes(data).to_bytes() == data
    rgb = np.ascontiguousarray(dead_leaves(1, 100, seed=1)[0][:70])
    codecs = [Codec(Artifact.from_bytes(data), bytes(8), engine, 1) for engine in ("exact", "openvino")]
    coded = codecs[0].encode(rgb)
    latents = codecs[0].analyse(rgb)
    assert np.unique(latents.y).size > 10, "the model codes nothing: this test would prove nothing"
    for codec in codecs:
        found = codec.decode_symbols(coded)
        np.testing.assert_array_equal(found.y, latents.y)
        np.testing.assert_array_equal(found.z, latents.z)
    first, second = (codec.decode(coded) for codec in codecs)
    assert first.shape == rgb.shape
    assert abs(first.astype(int) - second.astype(int)).max() <= 3  # the free zone


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_part_is_named(family):
    program, _ = made(family)
    for name in program:
        rest = Program({k: part for k, part in program.items() if k != name})
        with pytest.raises(ArtifactError, match=f"lacks the part {name}|lacks the part .*y0"):
            Codec(artifact(family, rest), bytes(8), "exact")


def with_part(program, part):
    return Program({**program, part.name: part})


def test_parts_that_do_not_fit_are_refused():
    program, _ = made(families.AUTOREGRESSIVE)
    context, parameters = program["context_prediction"], program["entropy_parameters"]
    convolution = context.operations[-1]
    assert isinstance(convolution, Convolution)
    future = convolution.weight.copy()
    future[:, :, 2, 2] = 1
    strided = replace(convolution, stride=2)
    reversed_grid = Grid(8, parameters.input_grid.scale, parameters.input_grid.zero_point[::-1].copy())
    last = parameters.operations[-1]
    broken = [
        Part(context.name, context.input_grid, (context.operations[0], replace(convolution, weight=future))),
        Part(context.name, context.input_grid, (context.operations[0], strided)),
        Part(context.name, context.input_grid, (context.operations[0],)),
        Part(context.name, Grid.fixed_point(6, 7), context.operations),
        Part(parameters.name, reversed_grid, parameters.operations),
        Part(parameters.name, parameters.input_grid, parameters.operations[:-1]),
        Part(
            parameters.name,
            parameters.input_grid,
            (*parameters.operations[:-1], replace(last, grid=Grid.fixed_point(12, 7))),
        ),
    ]
    for part in broken:
        with pytest.raises(ArtifactError):
            Codec(artifact(families.AUTOREGRESSIVE, with_part(program, part)), bytes(8), "exact")


@pytest.mark.parametrize("family", [families.CHECKERBOARD, families.CHANNEL_GROUPS])
def test_a_causal_mask_does_not_fit_a_checkerboard(family):
    program, _ = made(family)
    name = "context_prediction" if family == families.CHECKERBOARD else "spatial_context.y1"
    part = program[name]
    convolution = part.operations[-1]
    assert isinstance(convolution, Convolution)
    weight = convolution.weight.copy()
    weight[:, :, 1, 1] = 1
    broken = Part(name, part.input_grid, (part.operations[0], replace(convolution, weight=weight)))
    with pytest.raises(ArtifactError, match="not decoded yet"):
        Codec(artifact(family, with_part(program, broken)), bytes(8), "exact")


def test_tables_of_another_family_are_refused():
    program, _ = made(families.MEAN_SCALE_HYPERPRIOR)
    tables = random_tables(made(families.FACTORIZED)[0], families.FACTORIZED)
    with pytest.raises(ArtifactError, match="tables"):
        Artifact(families.MEAN_SCALE_HYPERPRIOR, program, tables, Plan({"g_a.0": LayerBits(8, 8)}))
