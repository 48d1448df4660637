"""MACs and weights of layers against counts by hand."""

import pytest
import torch

from licquant.models.geometry import geometry_hash, layer_geometry
from licquant.models.trace import trace_model
from tests.models_for_tests import hand_made, small_hyperprior


def test_macs_by_hand():
    """N = 8, M = 12: 5×5 kernels, every layer of g_a halves the sides and every one of g_s doubles them."""
    layers = {layer.name: layer for layer in layer_geometry(trace_model(small_hyperprior(8, 12)))}
    assert layers["g_a.0"].weights == 3 * 8 * 25
    assert layers["g_a.0"].macs == 3 * 8 * 25 / 4
    assert layers["g_a.1"].macs == 8 * 8 / 4
    assert layers["g_a.6"].macs == 8 * 12 * 25 / 256
    assert layers["h_a.0"].macs == 12 * 8 * 9 / 256
    assert layers["h_a.4"].macs == 8 * 8 * 25 / 4096
    assert layers["h_a.abs"].macs == layers["h_a.abs"].weights == 0
    assert layers["h_s.0"].macs == 8 * 8 * 25 / 4096
    assert layers["g_s.0"].macs == 12 * 8 * 25 / 256
    assert layers["g_s.5"].macs == 8 * 8 / 4
    assert layers["g_s.6"].macs == 8 * 3 * 25 / 4


def test_a_users_own_geometry():
    """A 7×7 kernel with stride 4, a residual block whose addition has no weights, 8×8 back."""
    layers = {layer.name: layer for layer in layer_geometry(trace_model(hand_made()))}
    assert layers["g_a.0"].macs == 3 * 8 * 49 / 16
    assert layers["g_a.3"].macs == 8 * 12 * 9 / 64
    assert layers["g_s.3"].macs == 8 * 3 * 64 / 16
    additions = [layer for layer in layers.values() if layer.kind == "addition"]
    assert additions
    assert all(layer.weights == layer.macs == 0 for layer in additions)


def test_the_hash_names_shapes_not_weights():
    first = geometry_hash(trace_model(small_hyperprior(seed=0)))
    assert first == geometry_hash(trace_model(small_hyperprior(seed=1)))
    assert first != geometry_hash(trace_model(small_hyperprior(8, 16)))
    other = small_hyperprior()
    other.g_a[0].padding, other.g_a[0].kernel_size = (1, 1), (3, 3)
    other.g_a[0].weight = torch.nn.Parameter(other.g_a[0].weight[:, :, 1:4, 1:4].detach())
    assert first != geometry_hash(trace_model(other))


@pytest.mark.parametrize("make", [small_hyperprior, hand_made])
def test_every_step_is_there(make):
    traced = trace_model(make())
    assert [layer.name for layer in layer_geometry(traced)] == [step.name for step in traced.layers]
