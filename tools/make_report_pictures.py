"""The pictures of docs/html-report.md, from a report of ``licquant evaluate --html``; needs Chromium and Playwright.

python tools/make_report_pictures.py REPORT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from page_pictures import chromium, save, window


def main(report: Path) -> None:
    url = (report / "index.html").resolve().as_uri()
    with chromium() as browser:
        light = window(browser, url, 1000, 900, "light")
        box = light.locator(".chart .series:not(.reference) .mark").nth(1).bounding_box()
        light.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        save(light.screenshot(), "report-light.png")
        dark = window(browser, url, 1000, 720, "dark")
        to(dark, "Images")
        versions = dark.locator("#left option").all_inner_texts()
        lmbda = versions[-1].partition(",")[0]  # of what stands to the right: FP32's is before it
        dark.locator("#left").select_option(label=next(version for version in versions if version.startswith(lmbda)))
        dark.locator("#zoom").select_option("2")
        save(dark.screenshot(), "report-dark.png")
        narrow = window(browser, url, 400, 800, "light")
        to(narrow, "Images")
        save(narrow.screenshot(), "report-narrow.png")


def to(page: Any, heading: str) -> None:
    page.locator("h2", has_text=heading).first.evaluate("(one) => one.scrollIntoView()")
    page.wait_for_timeout(300)  # until pictures are drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]))
