"""``licquant serve`` in a browser: the same symbols and pixels as the codec's, typed errors, nothing from elsewhere."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import licquant
from licquant.codec.codec import Codec
from licquant.codec.entropy.coder import decode_symbols
from licquant.codec.files.artifact import artifact_id
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.latents.factorized import FactorizedCoder
from tests.conformance.run import digest
from tests.served_page import CORPUS, EMBEDDED, MANIFESTED, ROOT, SEED, STATIC, Opened, codec_of  # skips without onnx

pytestmark = pytest.mark.slow

GOLDEN = ROOT / "tests" / "golden"
LARGE = 100 * 2**20


def symbols(codec: Codec, data: bytes) -> dict[str, str]:
    """The digests that the page must show of them."""
    found = codec.decode_symbols(data)
    if isinstance(codec.coder, FactorizedCoder):
        stream = Bitstream.from_bytes(data)
        tables, shape = codec.coder.latent.tables, found.y.shape
        index = np.arange(shape[0]).repeat(shape[1] * shape[2])
        return {"y": digest(decode_symbols(stream.strings[0], index, tables).reshape(shape))}
    return {"z": digest(found.z), "ŷ": digest(found.y)}


# --- the same as the codec


@pytest.mark.parametrize("name", STATIC)
def test_symbols_and_pixels_of_the_corpus(name: str, opened: Opened) -> None:
    codec = codec_of(CORPUS / f"{name}.licq")
    for picture, wanted in MANIFESTED[name]["pictures"].items():
        file = CORPUS / f"{name}.{picture}.lic"
        assert opened.give(file) == ""
        found = opened.digests()
        of_codec = symbols(codec, file.read_bytes())
        assert {key: found[key] for key in of_codec} == of_codec
        assert found["pixels"] == wanted["pixels"]
        assert found.get("ŷ", wanted["y"]) == wanted["y"]


def test_a_sample_in_several_tiles(opened: Opened) -> None:
    opened.page.locator("#samples button").first.click()
    assert opened.outcome() == ""
    data = opened.page.request.get(opened.page.url + "samples/kodim04.lic").body()
    codec = codec_of(EMBEDDED[2])
    wanted = codec.decode(data)
    assert max(wanted.shape) > 512  # pixels a side of a tile
    found = opened.digests()
    assert found["pixels"] == digest(wanted)
    assert {name: found[name] for name in "zŷ"} == symbols(codec, data)
    facts = opened.page.locator("#facts").text_content()
    assert f"{len(data):,} bytes" in facts
    assert codec.id.hex() in facts


def test_transparency_and_what_is_carried(opened: Opened) -> None:
    assert opened.give(GOLDEN / "with-fields.lic") == ""
    codec, data = codec_of(SEED), (GOLDEN / "with-fields.lic").read_bytes()
    alpha = codec.extras(data).alpha
    pixels = opened.pixels()
    np.testing.assert_array_equal(pixels[..., 3], alpha)
    solid = alpha == 255  # a canvas keeps colours multiplied by their alpha
    np.testing.assert_array_equal(pixels[..., :3][solid], codec.decode(data)[solid])
    assert opened.digests()["pixels"] == digest(codec.decode(data))
    assert "colour profile, EXIF, XMP" in opened.page.locator("#facts").text_content()


def test_regions(opened: Opened) -> None:
    codec, data = codec_of(SEED), (GOLDEN / "with-regions.lic").read_bytes()
    assert opened.give(GOLDEN / "with-regions.lic") == ""
    found = opened.digests()
    assert {name: found[name] for name in "zŷ"} == symbols(codec, data)
    assert found["pixels"] == digest(codec.decode(data))


# --- what is wrong is told as the codec's errors


def test_files_that_are_none(opened: Opened, tmp_path: Path) -> None:
    data = (CORPUS / "mbt2018-mean.scene.lic").read_bytes()
    zeros, claims = tmp_path / "zeros.lic", tmp_path / "claims.lic"
    for path, head in ((zeros, b""), (claims, b"LICI\x01")):
        path.write_bytes(head)
        with path.open("r+b") as file:
            file.truncate(LARGE)
    for content, says in (
        (data[:-9], f"BitstreamError: truncated .lic file: {len(data) - 9} bytes instead of {len(data)}"),
        (data[:20], "BitstreamError: truncated .lic file: 20 bytes do not hold the header"),
        (data + b"x", "BitstreamError: too long a .lic file"),
        (
            data[:40] + bytes([data[40] ^ 1]) + data[41:],
            "BitstreamError: damaged .lic file: the checksum does not match",
        ),
        (data[:4] + b"\x09" + data[5:], "BitstreamError: unknown version 9 of the .lic format"),
        (b"", "BitstreamError: not a .lic file: it is empty"),
        (EMBEDDED[0].read_bytes()[:100], "BitstreamError: not a .lic file: this is a model (.licq)"),
        (zeros, "BitstreamError: not a .lic file: it does not begin with LICI"),
        (claims, f"BitstreamError: too long a .lic file: {LARGE} bytes instead of 26"),
    ):
        path = content if isinstance(content, Path) else tmp_path / "bad.lic"
        if isinstance(content, bytes):
            path.write_bytes(content)
        assert opened.give(path).startswith(says)
    assert opened.give(CORPUS / "mbt2018-mean.scene.lic") == ""  # and goes on


def test_altered_files_with_a_right_checksum(opened: Opened, tmp_path: Path) -> None:
    stream = Bitstream.from_bytes((CORPUS / "mbt2018-mean.scene.lic").read_bytes())
    z, y = stream.strings

    def given(strings: tuple[bytes, ...], width: int = stream.width, height: int = stream.height, **more: Any) -> str:
        path = tmp_path / "bad.lic"
        path.write_bytes(Bitstream(stream.artifact_id, width, height, strings, **more).to_bytes())
        return opened.give(path)

    damaged = "BitstreamError: corrupted payload: "
    assert given((z, y[:-1])).startswith(damaged)
    assert given((z, bytes([y[0] ^ 1]) + y[1:])).startswith(damaged)
    assert given((z, y + b"\0")) == damaged + "its last byte is 0"
    assert given((z[4:], y)).startswith(damaged)
    assert given((z,)) == "BitstreamError: the file has 1 strings instead of 2"
    assert given((z, y), 1 << 14, 1 << 14).startswith("BitstreamError: the image has 16384×16384 pixels")
    assert given((z, y), fields={5: b"no plane"}).startswith("BitstreamError: damaged .lic file: its alpha")
    assert given((z, y), fields={6: bytes(4)}) == "BitstreamError: damaged .lic file: regions of 0 pixels a side"


def test_another_model(opened: Opened, tmp_path: Path) -> None:
    stream = Bitstream.from_bytes((CORPUS / "mbt2018.scene.lic").read_bytes())
    (tmp_path / "a.lic").write_bytes(Bitstream(bytes(8), stream.width, stream.height, stream.strings).to_bytes())
    told = opened.give(tmp_path / "a.lic")
    assert told.startswith(f"BitstreamError: coded with another model: it names artifact {'00' * 8}; here: ")
    assert artifact_id(EMBEDDED[0].read_bytes()).hex() in told


def test_a_model_that_has_no_form_in_onnx(opened: Opened) -> None:
    told = opened.give(CORPUS / "dynamic.scene.lic")
    assert told.startswith("ArtifactError: the model cannot be had: its widths depend on the image")
    assert all("500" in line for line in opened.complaints)  # what browsers say of an answer like that
    opened.complaints.clear()


# --- a folder of models of one's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from licquant.onnx_export.folder import export

    found = tmp_path_factory.mktemp("models") / "one"
    export(CORPUS / "mbt2018-mean.licq", found)
    return found


def test_a_folder_of_models(opened: Opened, folder: Path, tmp_path: Path) -> None:
    opened.page.locator("#folder").set_input_files(folder)
    opened.page.locator("#status", has_text="is open").wait_for()
    assert opened.give(CORPUS / "mbt2018-mean.scene.lic") == ""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("nothing")
    opened.page.locator("#folder").set_input_files(tmp_path / "empty")
    assert opened.outcome().startswith("ArtifactError: tables.json is missing")


def test_a_runtime_that_computes_otherwise_is_found(opened: Opened, folder: Path, tmp_path: Path) -> None:
    """A weight of hyper.onnx another: what a runtime does to it is as good as that."""
    import onnx

    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    model = onnx.load(str(altered / "hyper.onnx"))
    weights = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.UINT8]
    largest = max(weights, key=lambda one: len(one.raw_data))
    largest.raw_data = bytes(byte ^ 16 for byte in largest.raw_data)
    (altered / "hyper.onnx").write_bytes(model.SerializeToString())
    opened.page.locator("#folder").set_input_files(altered)
    assert opened.outcome().startswith("EngineError: this browser's runtime computes hyper.onnx wrongly")
    (altered / "hyper.onnx").write_bytes(b"no model")
    opened.page.locator("#folder").set_input_files(altered)
    assert opened.outcome().startswith("ArtifactError: hyper.onnx cannot be read")


# --- the page itself


def test_it_is_isolated_and_has_threads(opened: Opened) -> None:
    assert opened.page.evaluate("crossOriginIsolated")
    assert opened.page.title() == "licquant in the browser"
    assert opened.page.locator("#samples button").count() == 1


def test_a_file_that_is_dropped(opened: Opened) -> None:
    data = list((CORPUS / "2-bits.pixel.lic").read_bytes())
    opened.page.evaluate(
        "(data) => { const all = new DataTransfer(); all.items.add(new File([new Uint8Array(data)], '<b>.lic'));"
        " document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: all, bubbles: true, cancelable: true})) }",
        data,
    )
    assert opened.outcome() == ""
    assert opened.page.locator("#status").text_content() == "<b>.lic: decoded"


def test_stop_and_go_on(opened: Opened) -> None:
    opened.page.locator("#samples button").first.click()
    opened.page.locator("#stop").click()
    assert opened.page.locator("#status").text_content() == "Stopped."
    assert opened.give(CORPUS / "2-bits.scene.lic") == ""
    assert opened.digests()["pixels"] == MANIFESTED["2-bits"]["pictures"]["scene"]["pixels"]


def test_save_as_png(opened: Opened, tmp_path: Path) -> None:
    opened.give(CORPUS / "2-bits.scene.lic")
    with opened.page.expect_download() as saved:
        opened.page.locator("#save").click()
    assert saved.value.suggested_filename == "2-bits.scene.png"
    saved.value.save_as(tmp_path / "a.png")
    assert digest(licquant.read_image(tmp_path / "a.png")) == MANIFESTED["2-bits"]["pictures"]["scene"]["pixels"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_in_the_light_and_the_dark(browser: Any, served: str, scheme: str) -> None:
    found = Opened(browser, served, 400, color_scheme=scheme)
    assert found.give(GOLDEN / "with-regions.lic") == ""
    found.digests()
    assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    style = "getComputedStyle(document.body)"
    ground, ink = (
        sum(
            int(one) for one in found.page.evaluate(f"{style}.{what}").removeprefix("rgb(").removesuffix(")").split(",")
        )
        for what in ("backgroundColor", "color")
    )
    assert (ground < ink) == (scheme == "dark")
    assert found.complaints == []
    found.context.close()


def test_the_policy_refuses_what_is_not_the_pages_own(browser: Any, served: str) -> None:
    found = Opened(browser, served)
    tried = "fetch('https://example.org/').then(() => 'had it', () => 'refused')"
    assert found.page.evaluate(tried) == "refused"
    found.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.had = 1'}))"
    )
    assert found.page.evaluate("window.had") is None
    assert len([line for line in found.complaints if "Content Security Policy" in line]) >= 2
    found.context.close()
