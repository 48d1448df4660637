"""The picture of docs/browser.md: the page of ``licquant serve`` with a decoded sample; needs Chromium and Playwright.

make web && python tools/make_browser_picture.py
"""

from __future__ import annotations

import threading

from page_pictures import chromium, save, window

from licquant.browser import listen
from licquant.commands.model_search import embedded
from licquant.commands.serve import site_of


def main() -> None:
    server = listen(site_of(embedded()), 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    with chromium() as browser:
        page = window(browser, server.url, 1000, 885, "light")
        page.locator("#samples button").last.click()
        page.locator("#result").wait_for()
        save(page.screenshot(), "browser.png", 256)
    server.http.shutdown()
    thread.join()


if __name__ == "__main__":
    main()
