"""Dynamic artifacts: stored, read, run on both engines and in tiles; what is chosen, and what is refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from licquant.codec import codec as codec_module
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import DYNAMIC_VERSION, VERSION, Artifact, artifact_id
from licquant.codec.tiling import sample_tiled
from licquant.errors import ArtifactError, LoweringError
from licquant.program.chain import Chain
from licquant.program.dynamic import DynamicPart, Stage, split
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Part
from licquant.program.selector import positions
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import UNEVEN, WIDTHS, dynamic_artifact, static_part
from tests.fuzz.test_fuzz_artifact import rebuilt

IMAGES = [image // shade for image in dead_leaves(3, 96, seed=1) for shade in (1, 8)]


def header_of(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[6:10], "little")
    return json.loads(data[10 : 10 + length]), data[10 + length : -32]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return dynamic_artifact()


@pytest.fixture(scope="module")
def codecs(artifact) -> dict[str, Codec]:
    data = artifact.to_bytes()
    return {engine: Codec(Artifact.from_bytes(data), artifact_id(data), engine, 1) for engine in ("exact", "openvino")}


def test_what_is_read_is_what_was_written(artifact):
    data = artifact.to_bytes()
    again = Artifact.from_bytes(data)
    assert again.to_bytes() == data
    for name, part in again.dynamic.items():
        assert part.part is again.program[name]
        for stage, original in zip(part.stages, artifact.dynamic[name].stages, strict=True):
            for bits, found in stage.parts.items():
                for op, other in zip(found.operations, original.parts[bits].operations, strict=True):
                    if hasattr(op, "weight"):
                        np.testing.assert_array_equal(op.weight, other.weight)
                        np.testing.assert_array_equal(op.bias, other.bias)


def test_only_dynamic_artifacts_have_the_new_version(artifact):
    static = replace(artifact, dynamic={}).to_bytes()
    assert static[4:6] == VERSION.to_bytes(2, "little")
    assert artifact.to_bytes()[4:6] == DYNAMIC_VERSION.to_bytes(2, "little")
    assert not Artifact.from_bytes(static).dynamic


def test_weights_are_stored_once(artifact):
    """No blob of packed weights more than a static artifact has, but for those of the two selectors."""

    def packed(artifact: Artifact) -> set[int]:
        found = set()

        def visit(record):
            if isinstance(record, dict):
                if "bits" in record and "blob" in record:
                    found.add(record["blob"])
                record = list(record.values())
            for value in record if isinstance(record, list) else []:
                visit(value)

        visit(header_of(artifact.to_bytes())[0])
        return found

    assert len(packed(artifact)) == len(packed(replace(artifact, dynamic={}))) + 4


def test_weights_that_are_not_nested_cannot_be_stored(artifact):
    part = artifact.dynamic["g_a"]
    stage = part.stages[1]
    first, layer = stage.parts[4].operations
    other = replace(stage.parts[4], operations=(first, replace(layer, weight=-layer.weight)))
    stages = (part.stages[0], Stage(stage.name, {**stage.parts, 4: other}), part.stages[2])
    changed = replace(artifact, dynamic={"g_a": DynamicPart(part.part, stages, part.selector)})
    with pytest.raises(ValueError, match="not those inside"):
        changed.to_bytes()


@pytest.mark.parametrize("name", ["g_a", "g_s"])
def test_a_chain_computes_what_the_static_program_does(artifact, name):
    part = artifact.dynamic[name]
    chain = Chain(part, ExactEngine)
    rng = np.random.default_rng(0)
    q = rng.integers(0, 256, (3, 64, 96)) if name == "g_a" else rng.integers(-9, 10, (6, 7, 5))
    seen = set()
    for widths in [(a, b) for a in WIDTHS for b in WIDTHS]:
        found = chain.finish(chain.start(q), widths)
        np.testing.assert_array_equal(found, ExactEngine(static_part(part, widths)).run(q))
        seen.add(found.tobytes())
    assert len(seen) == 9, "widths that change nothing prove nothing"


def test_the_widest_chain_is_the_static_program(artifact):
    part = artifact.dynamic["g_s"]
    q = np.random.default_rng(0).integers(-9, 10, (6, 4, 5))
    np.testing.assert_array_equal(ExactEngine(static_part(part, (8, 8))).run(q), ExactEngine(part.part).run(q))


def test_a_stage_that_keeps_its_width_has_it_in_every_choice():
    again = Artifact.from_bytes(dynamic_artifact(19, UNEVEN).to_bytes())
    codec, seen = Codec(again, bytes(8), "exact", 1), set()
    assert [stage.widths for stage in again.dynamic["g_s"].stages] == [(8,), (8,), (4, 6, 8)]
    for rgb in IMAGES:
        y = codec.analyse(rgb).y
        analysed, synthesised = codec.analyse(rgb).widths, codec.synthesis_widths(y)
        assert analysed["g_a.2"] in (6, 8)
        assert synthesised["g_s.1"] == 8
        seen |= {("g_a", *analysed.values()), ("g_s", *synthesised.values())}
        static = ExactEngine(static_part(again.dynamic["g_s"], tuple(synthesised.values()))).run(y)
        np.testing.assert_array_equal(codec.synthesise(y, 96, 96), np.moveaxis(static, 0, -1)[:96, :96])
    assert len(seen) > 2


def test_choices_do_not_depend_on_the_engine(codecs):
    analysed, synthesised = set(), set()
    for rgb in IMAGES:
        exact, fast = codecs["exact"], codecs["openvino"]
        widths = exact.analyse(rgb).widths
        assert list(widths) == ["g_a.1", "g_a.2"]
        assert fast.analyse(rgb).widths == widths
        y = exact.analyse(rgb).y
        assert fast.synthesis_widths(y) == exact.synthesis_widths(y)
        analysed.add(tuple(widths.values()))
        synthesised.add(tuple(exact.synthesis_widths(y).values()))
    assert len(analysed) > 1, "the same for every image: this test would prove nothing"
    assert len(synthesised) > 1


def test_images_survive_and_engines_agree(codecs):
    for rgb in IMAGES:
        data = codecs["openvino"].encode(rgb)
        symbols = [codec.decode_symbols(data).y for codec in codecs.values()]
        np.testing.assert_array_equal(*symbols)
        exact, fast = (codec.decode(data).astype(int) for codec in codecs.values())
        assert exact.shape == rgb.shape
        assert abs(exact - fast).mean() <= 0.05  # a unit of 4 bits is 17 of 8: what falls beside a boundary shows
        assert abs(exact - fast).max() <= 20


def test_the_codec_runs_what_was_chosen(codecs, artifact):
    codec = codecs["exact"]
    y = codec.analyse(IMAGES[0]).y
    static = static_part(artifact.dynamic["g_s"], tuple(codec.synthesis_widths(y).values()))
    np.testing.assert_array_equal(codec.synthesise(y, 96, 96), np.moveaxis(ExactEngine(static).run(y), 0, -1)[:96, :96])


@pytest.mark.parametrize("engine", [ExactEngine, lambda part: OpenVinoEngine(part, 1)])
def test_tiles_have_the_widths_of_the_whole(artifact, engine, monkeypatch):
    data = artifact.to_bytes()
    name = "openvino" if engine is not ExactEngine else "exact"
    whole = Codec(artifact, artifact_id(data), name, 1)
    monkeypatch.setattr(codec_module, "TILE_PIXELS", 64)
    tiled = Codec(artifact, artifact_id(data), name, 1)
    rgb = np.concatenate([dead_leaves(1, 200, seed=3)[0], dead_leaves(1, 200, seed=4)[0] // 8])
    assert tiled.analyse(rgb).widths == whole.analyse(rgb).widths
    y = whole.analyse(rgb).y
    np.testing.assert_array_equal(tiled.analyse(rgb).y, y)
    np.testing.assert_array_equal(tiled.synthesise(y, 400, 200), whole.synthesise(y, 400, 200))


def test_samples_of_tiles_are_those_of_the_whole(artifact):
    part = artifact.dynamic["g_a"].stages[0].widest
    run = ExactEngine(part).run
    q = np.random.default_rng(0).integers(0, 256, (3, 176, 128))
    rows, columns = positions(44), positions(32)
    np.testing.assert_array_equal(sample_tiled(run, part, q, 12, rows, columns), run(q)[:, rows[:, None], columns])


def test_a_header_of_another_version_is_refused(artifact):
    header, blobs = header_of(artifact.to_bytes())
    del header["dynamic"]
    data = bytearray(rebuilt(header, blobs))
    assert data[4] == VERSION
    for version, message in ((DYNAMIC_VERSION, "not one of version 4"), (3, "version 3 of the format")):
        data[4] = version
        data[-32:] = hashlib.sha256(data[:-32]).digest()
        with pytest.raises(ArtifactError, match=message):
            Artifact.from_bytes(bytes(data))


def test_a_nested_width_above_the_stored_one_is_refused(artifact):
    header, blobs = header_of(artifact.to_bytes())
    narrow = header["dynamic"]["g_a"]["stages"][1]["narrower"][0]["operations"][1]
    narrow["weight"]["nested"] = 9
    with pytest.raises(ArtifactError, match="9 bits inside"):
        Artifact.from_bytes(rebuilt(header, blobs))


def test_stages_that_read_the_input_of_the_part_are_refused(artifact):
    first = artifact.dynamic["g_a"].stages[1].parts[4].operations[0]  # changes the grid, of any channels
    again = replace(first, name="again")
    with pytest.raises(LoweringError, match="more than the one before"):
        split(Part("g_a", artifact.dynamic["g_a"].stages[1].widest.input_grid, (first, again)), [1, 1])


def test_stages_that_are_no_chain_are_refused(artifact):
    part = artifact.program["g_a"]
    first, second, third = part.operations
    skipping = replace(part, operations=(first, second, replace(third, inputs=("g_a.0",))))
    with pytest.raises(LoweringError):
        split(skipping, [1, 1, 1])
    with pytest.raises(LoweringError, match="not all of it"):
        split(part, [1, 3])
    dynamic = artifact.dynamic["g_a"]
    with pytest.raises(LoweringError, match="not all of it"):
        replace(dynamic, stages=dynamic.stages[:2])
    stage = dynamic.stages[1]
    with pytest.raises(LoweringError, match="other widths than its stages have"):
        replace(dynamic, stages=(dynamic.stages[0], Stage(stage.name, {8: stage.widest}), dynamic.stages[2]))
