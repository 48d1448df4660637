"""The report in a browser, from disk: what the script adds works, nothing is refused, it fits 400 pixels and dark."""

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from licquant.images import read_image
from tests.html_pages import HOSTILE, LMBDAS, make_report

pytestmark = pytest.mark.slow
STAGE = "getComputedStyle(document.getElementById('stage')).getPropertyValue('--place').trim()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


class Opened:
    """The report in a window, with whatever the browser complained of or asked a network for."""

    def __init__(self, browser: Any, folder: Path, width: int = 1000, scheme: str = "light", **more: Any) -> None:
        viewport = {"width": width, "height": 800}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, **more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto((folder / "index.html").as_uri(), wait_until="load")

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def see_pictures(self) -> None:
        """Wait until they are drawn; not by wait_for_function, which looks twice by eval, and the page refuses that."""
        self.run("Promise.all([...document.images].map((one) => one.decode()))")

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Opened]:
    found = Opened(browser, folder)
    yield found
    assert found.complaints == []
    found.close()


def widest(found: Opened) -> tuple[int, int]:
    """What the page would scroll to sideways, and the window."""
    found.run("for (const one of document.querySelectorAll('details')) one.open = true")
    return tuple(found.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]"))


def colour(found: Opened, of: str, what: str) -> list[int]:
    told = found.run(f"getComputedStyle(document.querySelector('{of}')).{what}")
    return [int(value) for value in told.removeprefix("rgb(").removesuffix(")").split(",")]


def screenshot(found: Opened) -> np.ndarray:
    """The stage as it is on the screen, once its pictures are there: uint8 H×W×3."""
    found.see_pictures()
    # At whole pixels of the window, so that a pixel of the picture is one of the screen's.
    found.run("Object.assign(document.getElementById('window').style, {position: 'fixed', top: 0, left: 0})")
    with Image.open(BytesIO(found.page.locator("#stage").screenshot())) as image:
        return np.asarray(image.convert("RGB"))


def test_it_loads_from_disk_alone(opened: Opened, folder: Path) -> None:
    assert opened.page.title().startswith("licquant")
    assert all(url.startswith((folder.as_uri(), "data:")) for url in opened.requests)
    assert len([url for url in opened.requests if url.endswith(".png")]) == 2
    assert opened.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_the_chart_has_the_points_and_tells_them(opened: Opened) -> None:
    page = opened.page
    chart = page.locator(".chart").first
    assert chart.locator("svg > .series > .mark").count() == 2 * len(LMBDAS)
    mark = chart.locator("svg > .series.reference > .mark").nth(2)
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
    told = page.locator("#tip").text_content()
    assert told == mark.get_attribute("aria-label")
    assert "CompressAI FP32, λ = " in told
    assert page.locator("#tip").is_visible()
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


def test_the_chart_by_keyboard(opened: Opened) -> None:
    page = opened.page
    chart = page.locator(".chart").first
    marks = chart.locator("svg > .series > .mark")
    assert chart.locator("svg .mark[tabindex='0']").count() == 1
    marks.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").text_content() == marks.nth(1).get_attribute("aria-label")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tip").text_content() == marks.last.get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_curve_can_be_hidden(opened: Opened) -> None:
    chart = opened.page.locator(".chart").first
    chart.locator(".legend input").first.uncheck()
    assert chart.locator("svg > .series.reference").is_hidden()
    assert chart.locator("svg > .series").last.is_visible()
    chart.locator(".legend input").first.check()
    assert chart.locator("svg > .series.reference").is_visible()


def test_the_slider_moves(opened: Opened) -> None:
    page, slider = opened.page, opened.page.locator("#place")
    assert opened.run(STAGE) == "50%"
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert opened.run(STAGE) == "53%"
    page.keyboard.press("Home")
    assert opened.run(STAGE) == "0%"
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 30)
    page.mouse.up()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 30)
    assert abs(float(opened.run(STAGE).removesuffix("%")) - 25) < 0.5
    assert slider.input_value() == "25"


def test_left_of_the_divider_is_left(opened: Opened, folder: Path) -> None:
    """Pixels on the screen: of the original to the left, of the quantized result to the right."""
    page = opened.page
    page.locator("#image").select_option("1")
    page.locator("#zoom").select_option("1")
    original, quantized = (read_image(folder / f"images/1-{version}.png") for version in (0, 4))
    for place in (0, 30, 100):
        page.locator("#place").fill(str(place))
        seen = screenshot(opened)
        divider = round(5.12 * place)
        left, right = slice(0, max(divider - 20, 0)), slice(divider + 20, 512)  # beside the handle
        np.testing.assert_array_equal(seen[:, left], original[:, left])
        np.testing.assert_array_equal(seen[:, right], quantized[:, right])
    assert (original != quantized).any()


def test_zoom_and_difference(opened: Opened, folder: Path) -> None:
    page = opened.page
    page.locator("#image").select_option("1")
    page.locator("#zoom").select_option("3")
    assert page.locator("#stage").bounding_box()["width"] == 4 * 512
    assert opened.run("getComputedStyle(document.querySelector('#stage img')).imageRendering") == "pixelated"
    assert opened.run("document.getElementById('window').scrollWidth") == 4 * 512
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#zoom").select_option("1")
    page.locator("#difference").check()
    one, other = (read_image(folder / f"images/1-{version}.png").astype(int) for version in (0, 4))
    np.testing.assert_array_equal(screenshot(opened), np.minimum(8 * abs(one - other), 255))
    page.locator("#left").select_option("4")
    assert not screenshot(opened).any()
    page.locator("#difference").uncheck()
    assert screenshot(opened).any()


def test_every_image_and_version_can_be_chosen(opened: Opened) -> None:
    page = opened.page
    for image in range(2):
        page.locator("#image").select_option(str(image))
        for version in range(5):
            page.locator("#left").select_option(str(version))
            opened.see_pictures()
            assert page.locator("#stage .left").get_attribute("src") == f"images/{image}-{version}.png"
    told = page.locator("#compared").text_content()
    assert told.startswith("a.png, pixels 16 to 527 across, 8 to 391 down; ")
    page.locator("#image").select_option("0")
    assert page.locator("#compared").text_content().startswith(HOSTILE)
    assert "left: λ = 0.04, <b> (whole image " in told
    assert page.title().startswith("licquant")


@pytest.mark.parametrize("width", [400, 320])
def test_a_narrow_window_does_not_scroll_sideways(browser: Any, folder: Path, width: int) -> None:
    found = Opened(browser, folder, width)
    scroll, window = widest(found)
    assert (scroll, found.complaints) == (window, [])
    letters = found.run(
        "document.querySelector('.grid text').getBoundingClientRect().height"
        " && Math.min(...[...document.querySelectorAll('.grid text')].map((one) => one.getBoundingClientRect().height))"
    )
    assert letters > 10  # pixels: can be read
    found.close()


def test_dark_and_light(browser: Any, folder: Path) -> None:
    for scheme, dark in (("dark", True), ("light", False)):
        found = Opened(browser, folder, scheme=scheme)
        ground, ink = colour(found, "body", "backgroundColor"), colour(found, "body", "color")
        line = colour(found, ".colour0 .curve", "stroke")
        assert (sum(ground) < sum(ink)) == dark
        assert abs(sum(line) - sum(ground)) > 200
        found.close()


def test_without_a_script(browser: Any, folder: Path) -> None:
    found = Opened(browser, folder, java_script_enabled=False)
    assert found.page.locator(".chart").first.locator("title").count() == 2 * len(LMBDAS)
    assert found.page.locator("#stage img").count() == 2
    found.close()


def test_the_checks_see_what_they_look_for(browser: Any, folder: Path, tmp_path: Path) -> None:
    """A page with everything wrong: a script that the policy does not know, a network, a name as markup, no room."""
    place = tmp_path / "broken"
    shutil.copytree(folder, place)
    whole = (place / "index.html").read_text(encoding="utf-8")
    wrong = "<script>alert(1)</script><img src='https://example.org/x.png' alt=''><div style='width:2000px'>.</div>"
    (place / "index.html").write_text(whole.replace("</main>", f"{wrong}</main>"), encoding="utf-8")
    found = Opened(browser, place, 400)
    assert any("script" in line for line in found.complaints)
    assert any("example.org" in line for line in found.complaints)
    assert widest(found)[0] > 400
    found.close()
