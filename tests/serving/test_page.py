"""The page in a browser: search, pick, result, filter, reload, error, widths, and accessibility."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import numpy as np
import polars as pl
import pytest

import metatl
from planted_data import write_ring

uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = playwright.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

ITEMS = 40
CONFIG = {"dim": 8, "batch_size": 32, "max_steps": 4, "eval_every": 2, "shared_negatives": 16}
CONFIG["shared_support_negatives"] = 8


def title_of(number):
    return f"Cup {number:02} with a rather long title"


class Server:
    """The service in a thread, at an address of this machine."""

    def __init__(self, settings):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        from metatl.serving.service.app import build

        self._server = uvicorn.Server(uvicorn.Config(build(settings), port=port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self):
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    data = write_ring(folder / "ring.csv", 200, items=ITEMS)
    metatl.fit(data, config=CONFIG, out=folder / "run", device="cpu")
    ids = [f"i{number}" for number in range(ITEMS)]
    table = pl.DataFrame(
        {
            "item_id": ids,
            "title": [title_of(number) for number in range(ITEMS)],
            "colour": np.array(["red", "green", "blue", "white"])[np.arange(ITEMS) % 4],
        }
    )
    table.write_csv(folder / "items.csv")
    from metatl.serving.service.settings import ServiceSettings

    return ServiceSettings(run=str(folder / "run"), items=str(folder / "items.csv"))


@pytest.fixture(scope="module")
def server(settings):
    started = Server(settings)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser, server):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(10_000)
    messages, requests = [], []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(server.address)
    opened.wait_for_selector("#list li")
    yield opened
    opened.close()
    assert messages == []
    assert all(url.startswith((server.address, "data:")) for url in requests)


def pick(page, number):
    page.fill("#query", f"cup {number:02}")
    expect(page.locator("#found li")).to_contain_text([title_of(number)])
    page.click("#found button")


def titles(page, where):
    return page.locator(f"{where} .text").evaluate_all("all => all.map(one => one.firstChild.textContent)")


def test_search_pick_and_result(page, settings):
    assert "metatl (tuned), 40 items" in page.inner_text("#run")
    assert "most popular" in page.inner_text("#list-status")
    for number in (3, 14):
        pick(page, number)
    assert titles(page, "#history") == [title_of(number) for number in (3, 14)]
    expect(page.locator("#list-status")).to_contain_text("picks")
    best = metatl.Recommender.load(settings.run).recommend([["i3", "i14"]])[0]
    expected = [title_of(int(one.item_id[1:])) for one in best]
    assert titles(page, "#list") == expected


def test_filters_and_comparisons(page):
    pick(page, 3)
    page.select_option("select[name=colour]", "red")
    expect(page.locator("#list small")).to_have_text(["colour: red"] * 10)
    page.select_option("#compare", "step")
    page.wait_for_selector("#list .move")
    page.select_option("#compare", "pick")
    page.wait_for_selector("#list .move")
    page.check("#again")
    page.click("#clear")
    expect(page.locator("#list-status")).to_contain_text("popular")
    assert titles(page, "#history") == []


def test_why_an_item_and_what_is_similar(page):
    for number in (3, 14):
        pick(page, number)
    page.click("#list li:first-child button:has-text('Why?')")
    page.wait_for_selector("#details[open]")
    shares = page.locator("#shares li").count()
    assert shares in (3, 4)  # two items, their transition, and perhaps the inner step
    assert page.locator("#shares svg rect").count() == shares
    assert page.locator("#similar li").count() == 5
    page.keyboard.press("Escape")
    assert page.locator("#details[open]").count() == 0


def test_a_reload_starts_again(page):
    pick(page, 3)
    page.reload()
    page.wait_for_selector("#list li")
    assert titles(page, "#history") == []
    assert page.input_value("#query") == ""


def test_the_keyboard_is_enough(page):
    page.focus("#query")
    page.keyboard.type("cup 07")
    expect(page.locator("#found li")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    assert titles(page, "#history") == [title_of(7)]
    page.focus("#history button")
    page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "query"


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_accessibility(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    pick(page, 3)
    page.wait_for_selector("#list button:has-text('Why?')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.click("#list li:first-child button:has-text('Why?')")
    page.wait_for_selector("#details[open]")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_an_error_is_shown_and_goes_away(browser, settings):
    server = Server(settings)
    page = browser.new_page()
    page.goto(server.address)
    page.wait_for_selector("#list li")
    server.stop()
    page.fill("#query", "cup")
    page.wait_for_selector("#error:visible")
    assert page.inner_text("#error") == "The service does not answer. Is it still running?"
    page.close()
