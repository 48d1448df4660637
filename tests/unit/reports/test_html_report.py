"""The report that a browser opens: figures are those of the JSON, names stay text, nothing is loaded from elsewhere."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from licquant.codec.codec import Codec, load
from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.commands.toolkit import shown_command
from licquant.evaluate.codec_results import Curve
from licquant.images import read_image
from licquant.reports import report
from licquant.reports.html.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Mark, Series, chart
from licquant.reports.html.content import page
from licquant.reports.html.markup import Html, embedded_json, figure, tag, text
from licquant.reports.html.samples import CROP, Samples, parts_of
from licquant.reports.html.tables import heat_map
from tests.html_pages import HOSTILE, LMBDAS, Element, make_report, numbers, read_page, table_of
from tests.unit.evaluate.curves import curve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def elements(folder: Path) -> Element:
    return read_page((folder / "index.html").read_text(encoding="utf-8"))


# --- the page and the record --------------------------------------------------------------------------------


def test_the_page_is_a_function_of_the_record(folder: Path, record: dict[str, Any]) -> None:
    assert page(record) == (folder / "index.html").read_text(encoding="utf-8")
    assert record["schema"] == "licquant-report/1"
    assert record["evaluation"] == json.loads((folder.parent / "results.json").read_text(encoding="utf-8"))


def test_figures_are_those_of_the_json(elements: Element, record: dict[str, Any]) -> None:
    evaluation = record["evaluation"]
    (found,) = evaluation["comparisons"]
    (row,) = numbers(table_of(elements, "Each codec against the FP32 model"))
    bits = found["average_bits"]
    assert row == [
        found["bd_rate_pchip_percent"],
        found["bd_rate_cubic_percent"],
        *found["rd_loss_change_percent"].values(),
        found["average_model_bytes"],
        found["average_model_percent"],
        *(bits[key] for key in ("weight", "weight_layer", "activation")),
        found["median_encode_ms"],
        found["median_decode_ms"],
    ]
    points = [point for one in (evaluation["reference"], *evaluation["curves"]) for point in one["points"]]
    keys = ("lmbda", "bpp", "psnr", "ms_ssim", "rd_loss", "model_bytes")
    assert numbers(table_of(elements, "Every point")) == [[point[key] for key in keys] for point in points]
    for one in (evaluation["reference"], *evaluation["curves"]):
        for point in one["points"]:
            rows = numbers(table_of(elements, f"Every image: {one['label']}, λ = {point['lmbda']:g}"))
            assert [cells[1:3] for cells in rows] == [[image["bytes"], image["bpp"]] for image in point["images"]]


def test_the_chart_has_every_point_in_its_place(elements: Element, record: dict[str, Any]) -> None:
    """Places are linear in rate and PSNR, one scale for all the curves."""
    evaluation = record["evaluation"]
    first = next(one for one in elements.all("figure") if one.attributes.get("class") == "chart")
    drawn = [one for one in first.all("svg")[0].all("g") if str(one.attributes.get("class")).startswith("series")]
    places, wanted = [], []
    for group, one in zip(drawn, [evaluation["reference"], *evaluation["curves"]], strict=True):
        marks = [mark for mark in group.all("g") if mark.attributes.get("class") == "mark"]
        assert len(marks) == len(one["points"]) == len(LMBDAS)
        assert len(group.all("line")) == len(marks) - 1
        for mark, point in zip(marks, sorted(one["points"], key=lambda point: point["bpp"]), strict=True):
            places.append([float(at) for at in re.findall(r"[-\d.]+", str(mark.attributes["transform"]))])
            wanted.append([point["bpp"], point["psnr"]])
            assert f"{point['bpp']:.4f} bpp; {point['psnr']:.3f} dB" in mark.all("title")[0].text
    for axis in (0, 1):
        values, at = (np.array(column)[:, axis] for column in (wanted, places))
        slope, start = np.polyfit(values, at, 1)
        assert np.abs(slope * values + start - at).max() < 0.02
        assert (slope > 0) == (axis == 0)


def test_plan_and_bytes(elements: Element, record: dict[str, Any]) -> None:
    model = record["models"][0]
    rows = table_of(elements, f"{model['label']}: bits and bytes of every layer").all("tbody")[0].all("tr")
    assert [row.all("th")[0].text for row in rows] == [layer["name"] for layer in model["layers"]]
    assert rows[0].all("td")[1].text == rows[0].all("td")[2].text == "8"
    keys = next(one for one in elements.all("figure") if one.text.startswith(f"Artifact, {model['bytes']:,} bytes"))
    sizes = [float(item.all("data")[0].attributes["value"] or 0) for item in keys.all("li")]
    assert sum(sizes) == model["bytes"]
    assert sum(model["coded"].values()) == pytest.approx(
        np.mean([image["bytes"] for image in record["evaluation"]["curves"][0]["points"][0]["images"]])
    )


def test_the_machine_and_the_commands(elements: Element, record: dict[str, Any], folder: Path) -> None:
    machine = record["evaluation"]["provenance"]["machine"]
    assert machine["cpu"] in elements.text
    assert str(folder.parent) not in (folder / "index.html").read_text(encoding="utf-8")
    assert elements.all("code")[0].text == record["command"]


def test_commands_are_shown_without_folders() -> None:
    words = ["evaluate", "--images", "/a/my photos/", "--models=/a/b.licq", "--threads", "2", "a;b", "\udcff"]
    shown = shown_command(words)
    assert shown == "licquant evaluate --images 'my photos' --models=b.licq --threads 2 'a;b' '\\udcff'"


# --- pictures -----------------------------------------------------------------------------------------------


def test_pictures_are_crops_of_what_is_decoded(folder: Path, record: dict[str, Any]) -> None:
    samples = record["samples"]
    assert [version["label"] for version in samples["versions"]] == ["original", *["CompressAI FP32"] * 2, *["<b>"] * 2]
    assert [version["lmbda"] for version in samples["versions"][3:]] == [LMBDAS[0], LMBDAS[-1]]
    for number, image in enumerate(samples["images"]):
        original = read_image(folder.parent / "images" / image["name"])
        crop = image["crop"]
        assert (crop["width"], crop["height"]) == tuple(map(min, original.shape[1::-1], CROP))
        assert abs(2 * crop["left"] + crop["width"] - original.shape[1]) <= 1
        rows = slice(crop["top"], crop["top"] + crop["height"])
        columns = slice(crop["left"], crop["left"] + crop["width"])
        np.testing.assert_array_equal(read_image(folder / f"images/{number}-0.png"), original[rows, columns])
        codec = load(folder.parent / f"{LMBDAS[-1]}.licq", threads=1)
        decoded = codec.decode(codec.encode(original))[rows, columns]
        np.testing.assert_array_equal(read_image(folder / f"images/{number}-4.png"), decoded)
    shown = sorted(path.name for path in (folder / "images").iterdir())
    assert shown == [f"{image}-{version}.png" for image in range(2) for version in range(5)]


def test_few_pictures_of_many_images_and_codecs(image: np.ndarray) -> None:
    names = [f"{n}.png" for n in range(10)]
    samples = Samples([Path(name) for name in names], names, {f"codec {n}": [0.04, 0.01, 0.02] for n in range(6)})
    for label in samples.curves:
        for lmbda in (0.01, 0.02, 0.04):
            watch = samples._eye((label, lmbda)) if (label, lmbda) in samples._keys else None
            for _ in names if watch else ():
                watch(image, b"", image)  # type: ignore[misc]
    assert [one["name"] for one in samples.record["images"]] == ["0.png", "3.png", "6.png"]
    assert len(samples.record["versions"]) == 1 + 4 * 2
    assert len(samples.pictures) == 3 * 9
    assert samples.watch_reference("FP32", 0.02) is None
    assert samples.watch_reference("FP32", 0.01) is not None
    assert samples.record["versions"][1] == {"label": "FP32", "lmbda": 0.01}


def test_the_parts_of_a_coded_file_are_all_of_it(codec: Codec, image: np.ndarray) -> None:
    stream = Bitstream.from_bytes(codec.encode(image))
    for fields in ({}, {FIELD_KINDS["exif"]: b"twelve bytes"}):
        data = replace(stream, fields=fields).to_bytes()
        found = parts_of(data)
        assert sum(found.values()) == len(data)
        assert (found["z"], found["y"]) == tuple(map(len, stream.strings))
        assert found["fields"] == sum(map(len, fields.values()))


# --- text stays text ----------------------------------------------------------------------------------------


def skeleton(element: Element) -> list[object]:
    """Names of elements and attributes, without a word of their content."""
    return [element.name, sorted(element.attributes), *map(skeleton, element.children)]


def altered(value: Any, change: Callable[[str], str], kept: tuple[str, ...] = ("schema", "metric")) -> Any:
    """Every string in a record changed, names of stages included, but numbers and the record's own keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [altered(item, change) for item in value]
    if isinstance(value, dict):
        return {key: item if key in kept else altered(item, change) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "words", [HOSTILE, "</script><script>alert(1)</script>", "</title></style>", "<!--", "]]>&lt;", "\udcff\x00\u202e"]
)
def test_no_name_becomes_markup(record: dict[str, Any], words: str) -> None:
    plain, hostile = (read_page(page(altered(record, lambda s, w=w: s + w))) for w in ("harmless", words))
    assert skeleton(hostile) == skeleton(plain)
    assert page(altered(record, lambda s: s + words)).encode("utf-8", "backslashreplace")


def test_the_hostile_name_is_told_as_it_is(elements: Element) -> None:
    listed = [option.text for option in elements.all("select", id="image")[0].all("option")]
    assert HOSTILE in listed
    legend = next(one for one in elements.all("ul") if one.attributes.get("class") == "legend")
    assert [line.text for line in legend.all("li")] == ["CompressAI FP32", "<b>"]


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<b>&", Html("<i>"), class_='"x"', data_x=None, open=True) == (
        '<p class="&quot;x&quot;" open>&lt;b&gt;&amp;<i></p>'
    )
    assert text("a\u202eb\x00") == "a\\u202eb\\x00"
    assert figure(None, ".2f") == figure(math.nan, ".2f") == "–"
    assert figure(1.234, "+.1f", " %") == '<data value="1.234">+1.2 %</data>'
    made = embedded_json("a", ["</script><!--", "é"])
    assert "</script><!--" not in made
    assert json.loads(made.partition(">")[2].removesuffix("</script>")) == ["</script><!--", "é"]


# --- nothing from elsewhere ---------------------------------------------------------------------------------


def test_nothing_is_loaded_from_a_network(elements: Element, folder: Path) -> None:
    every = [elements]
    for element in every:
        every += element.children
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            to = element.attributes.get(name)
            assert to is None or to.startswith(("#", "data:,")) or (folder / to).is_file(), to
        assert not any(name.startswith("on") for name in element.attributes)
    style, script = elements.all("style")[0].text, elements.all("script")[-1].text
    assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|import\(", style + script)


def test_the_page_allows_its_own_script_alone(elements: Element) -> None:
    (policy,) = [meta for meta in elements.all("meta") if "http-equiv" in meta.attributes]
    digest = base64.b64encode(hashlib.sha256(elements.all("script")[-1].text.encode()).digest()).decode()
    assert "default-src 'none'" in str(policy.attributes["content"])
    assert f"script-src 'sha256-{digest}'" in str(policy.attributes["content"])


def test_what_needs_a_label_has_one(elements: Element) -> None:
    assert elements.all("html")[0].attributes["lang"] == "en"
    assert all(image.attributes["alt"] for image in elements.all("img"))
    inside = [control for label in elements.all("label") for name in ("input", "select") for control in label.all(name)]
    controls = elements.all("input") + elements.all("select")
    assert set(map(id, controls)) == set(map(id, inside))
    assert all(table.all("caption") for table in elements.all("table"))
    targets = {str(heading.attributes["id"]) for heading in elements.all("h2")}
    assert {str(link.attributes["href"])[1:] for link in elements.all("nav")[0].all("a")} == targets


# --- charts and tables of any figures -----------------------------------------------------------------------


def minimal(curves: list[Curve], reference: Curve | None) -> dict[str, Any]:
    """A record of curves alone, without artifacts and images."""
    evaluation = report.finite(report.report_of(curves, {"images": 1, "versions": {}}, reference))
    samples = {"images": [], "versions": [], "limits": ""}
    return {"evaluation": evaluation, "models": [], "samples": samples, "command": "licquant evaluate"}


def test_without_reference_images_and_models() -> None:
    found = read_page(page(minimal([curve("8 bits")], None)))
    assert not found.all("div", id="stage")
    assert numbers(table_of(found, "Each codec against the FP32 model"))[0][:2] == [None, None]
    assert page(minimal([], curve("FP32")))


def test_widths_that_depend_on_the_image() -> None:
    (one, *_), chosen = curve("dynamic").points, ({"g_a.0": 6, "g_s.0": 8}, {"g_a.0": 6, "g_s.0": 10})
    images = tuple(replace(one.images[0], name=f"{n}.png", widths=widths) for n, widths in enumerate(chosen))
    made = minimal([Curve("dynamic", (replace(one, images=images),))], None)
    shown = table_of(read_page(page(made)), f"Bits of each stage: dynamic, λ = {one.lmbda:g}")
    assert [cell.text for cell in shown.all("thead")[0].all("th")] == ["image", "g_a.0", "g_s.0"]
    rows = [[cell.text for cell in row.all("th") + row.all("td")] for row in shown.all("tbody")[0].all("tr")]
    assert rows == [["0.png", "6", "8"], ["1.png", "6", "10"], ["average", "6.00", "9.00"]]


def test_only_so_many_images_are_listed() -> None:
    (one, *_) = curve("8 bits").points
    images = tuple(replace(one.images[0], name=f"{n}.png") for n in range(250))
    found = read_page(page(minimal([Curve("8 bits", (replace(one, images=images),))], None)))
    assert len(numbers(table_of(found, f"Every image: 8 bits, λ = {one.lmbda:g}"))) == 200
    assert "200 of 250 are shown; all stand in report.json" in found.text


def test_curves_of_several_models_and_budgets() -> None:
    """Each λ with several artifacts has its chart of loss against bytes; 24 curves all look different."""
    curves = [replace(curve(f"m{n}", n / 10, model_bytes=1_000_000 + n), method="m") for n in range(24)]
    made = minimal(curves, curve("FP32"))
    made["evaluation"]["references"] = [made["evaluation"]["reference"], made["evaluation"]["reference"]]
    found = read_page(page(made))
    charts = [one for one in found.all("figure") if one.attributes.get("class") == "chart"]
    assert len(charts) == 1 + 4
    drawn = [one for one in charts[0].all("svg")[0].all("g") if str(one.attributes.get("class")).startswith("series")]
    assert len(drawn) == 26
    assert len({str(one.attributes["class"]) for one in drawn}) == 24 + 1
    (series,) = [g for g in charts[1].all("svg")[0].all("g") if str(g.attributes.get("class")).startswith("series")]
    assert len([g for g in series.all("g") if g.attributes.get("class") == "mark"]) == 24


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-5.0, 1e9], [1e-9, 2e-9], [math.nan, math.inf], [], [3, 3.5]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_charts_of_any_values(values: list[float], logarithmic: bool) -> None:
    axis = Axis("a", logarithmic)
    made = read_page(chart([Series("s", [Mark(v, v, "told") for v in values])], axis, axis, "name"))
    marks = [one for one in made.all("g") if one.attributes.get("class") == "mark"]
    assert len(marks) == sum(map(math.isfinite, values))
    for mark in marks:
        x, y = (float(at) for at in re.findall(r"[-\d.]+", str(mark.attributes["transform"])))
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM


def test_zeta_in_percent_with_readable_letters() -> None:
    made = heat_map("weights", ["g_a.0", "<g_a.1>"], [4, 8], [[0.5, None], [-1e-7, 20.0]])
    assert numbers(read_page(made)) == [[50.0, None], [pytest.approx(-1e-5), 2000.0]]
    cells = read_page(made).all("td")
    assert "#fff" in str(cells[3].attributes["style"])
    assert "#222" in str(cells[2].attributes["style"])
    assert heat_map("activations", ["a"], [8], [[None]])
    one = read_page(heat_map("activations", ["a", "b"], [4, 6, 8], [[None, 0.5, None], [None, None, None]]))
    assert numbers(one) == [[50.0], [None]]  # a column for 6 bits alone
