"""Latency tables as files, and the timing of layers on small parts."""

import json

import numpy as np
import pytest

from licquant.codec.files.artifact import Artifact
from licquant.config import LayerBits, Plan
from licquant.errors import DataError
from licquant.evaluate.latency import EXACT, NARROW, OPENVINO, WIDE, LatencyTable, LayerTimes
from licquant.evaluate.layer_timing import (
    _CountingEngine,
    input_sizes,
    random_input,
    time_exact_part,
    time_free_part,
    with_widths,
)
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Program


@pytest.fixture
def table() -> LatencyTable:
    free = {(w, a): float(w + a) for w in (NARROW, WIDE) for a in (NARROW, WIDE)}
    layers = {"g_a.0": LayerTimes(OPENVINO, 1, free), "h_s.0": LayerTimes(EXACT, 2, {(8, 8): 1.0, (12, 12): 2.5})}
    return LatencyTable(layers, 3.5, (768, 512), None, "ab", {"cpu": "x"}, {"within": True}, {"time": "now"})


def test_tables_survive_the_file(tmp_path, table):
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json")
    assert again == table
    assert again.layers["h_s.0"].at(9, 8) == again.layers["h_s.0"].at(4, 9) == 5.0


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"format": "licquant.plan"}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.json"):
        LatencyTable.load(tmp_path / "t.json")
    with pytest.raises(DataError, match=r"no such|No such"):
        LatencyTable.load(tmp_path / "missing.json")


def test_damaged_tables_are_refused(table):
    record = json.loads(json.dumps(table.to_json()))
    assert LatencyTable.from_json(record) == table
    for key in ("layers", "size", "geometry", "rest_ms"):
        with pytest.raises(DataError, match="damaged"):
            LatencyTable.from_json({k: v for k, v in record.items() if k != key})
    with pytest.raises(DataError, match="version 2"):
        LatencyTable.from_json({**record, "version": 2})
    record["layers"]["g_a.0"]["ms"].pop()
    with pytest.raises(DataError, match="damaged"):
        LatencyTable.from_json(record)


def test_kernels_are_counted_to_layers_and_nothing_is_lost(artifact_path):
    part = Artifact.from_bytes(artifact_path.read_bytes()).program["g_a"]
    engine, x = _CountingEngine(part, 1), random_input(part, (64, 96))
    plain = OpenVinoEngine(part, 1)
    np.testing.assert_array_equal(engine.run(x), plain.run(x))
    engine = _CountingEngine(part, 1)
    runs = [engine.timed_run(x) for _ in range(5)]
    kernels = engine._request().get_profiling_info()
    mean = sum(1000 * k.real_time.total_seconds() for k in kernels)
    assert sum(sum(found.values()) for _, found in runs) == pytest.approx(5 * mean)
    # Whole runs are longer than their kernels, each of them: only differences of OpenVINO's means are so.
    assert all(whole > sum(found.values()) - 0.05 for whole, found in runs)
    assert set(engine._owner.values()) >= {op.name for op in part.operations if hasattr(op, "weight_bits")}
    assert not any(k.real_time for k in plain._request().get_profiling_info()), "the counters stayed on"


def test_every_layer_gets_a_time(artifact_path):
    program = Artifact.from_bytes(artifact_path.read_bytes()).program
    sizes = input_sizes(program, (128, 64))
    assert sizes == {"g_a": (64, 128), "h_a": (4, 8), "h_s": (1, 2), "g_s": (4, 8)}
    classes = {(w, a): program["g_s"] for w in (NARROW, WIDE) for a in (NARROW, WIDE)}
    times, outside = time_free_part(classes, sizes["g_s"], 1, 3)
    assert list(times) == [op.name for op in program["g_s"].operations]
    assert all(times["g_s.6"][widths] > 0 for widths in classes)
    assert outside > 0
    exact = time_exact_part({(8, 8): program["h_s"], (9, 9): program["h_s"]}, sizes["h_s"], 3)
    assert all(0 < ms[8, 8] <= ms[9, 9] for ms in exact.values())


def test_what_reads_the_latent_has_its_size(artifact_path):
    program = Artifact.from_bytes(artifact_path.read_bytes()).program
    parts = {"g_a": program["g_a"], "g_s": program["g_s"]}
    assert input_sizes(Program(parts), (128, 64)) == {"g_a": (64, 128), "g_s": (4, 8)}
    with_context = Program({**parts, "context_prediction": program["h_s"]})
    assert input_sizes(with_context, (128, 64))["context_prediction"] == (4, 8)


def test_products_keep_having_no_weights():
    plan = Plan({"g_a.0": LayerBits(8, 8), "g_a.mul": LayerBits(None, 8)})
    wide = with_widths(plan, lambda _: (12, 10))
    assert {bits.activation for bits in wide.layers.values()} == {10}
    assert [b.weight is None for b in plan.layers.values()] == [b.weight is None for b in wide.layers.values()]
    assert {bits.weight for bits in wide.layers.values()} == {12, None}
