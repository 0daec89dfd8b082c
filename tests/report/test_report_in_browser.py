"""The promise: the page of `eventcsv report` works in a real browser, in both themes, and with 10,000 POs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from conftest import cannot
from hostile import hostile_job
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from eventcsv import Event, EventCsv
from eventcsv.event import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
DRIVER: Final = shutil.which("chromedriver")
FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BEGAN: Final = datetime(2026, 5, 4, 6, 0, tzinfo=UTC)


class Browser:
    """A page in a browser, as somebody who reads it has it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, theme: str = "light") -> None:
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self._tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.complaints()  # those of an earlier page
        self.driver.get(page.as_uri())

    def _tell(self, command: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def count(self) -> str:
        return self.driver.find_element(By.ID, "count").text

    def waits_for(self, holds: Callable[[], object]) -> None:
        WebDriverWait(self.driver, 30, poll_frequency=0.02).until(lambda _: holds())

    def search(self, text: str) -> None:
        """Type a search, and wait until its count shows."""
        field = self.driver.find_element(By.ID, "search")
        field.clear()
        self.run("document.getElementById('count').textContent = ''")
        field.send_keys(text)
        self.waits_for(self.count)

    def choose(self, name: str, value: str) -> None:
        option = self.driver.find_element(By.CSS_SELECTOR, f'#{name} option[value="{value}"]')
        option.click()

    def keys(self) -> list[str]:
        """Return the POs that the list shows."""
        found: list[str] = self.run("return [...document.querySelectorAll('#rows th')].map((cell) => cell.textContent)")
        return found

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        text: str = self.run("return document.activeElement.textContent")
        return text

    @property
    def history(self) -> str:
        """The history that is open, or ""."""
        text: str = self.run("const d = document.getElementById('history'); return d.open ? d.innerText : ''")
        return text

    def complaints(self) -> list[Any]:
        found: list[Any] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types here
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of this test's own."""
    if not CHROMIUM or not DRIVER:
        cannot("there is no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about 120 POs: some failed, one was tried twice, one was interrupted, some wait."""
    place = tmp_path_factory.mktemp("report")
    rows = "".join(f"PO{number};;Supplier {number % 7}\n" for number in range(1, 121))
    (place / "input.csv").write_text("PO_NUMBER;STATUS;SUPPLIER\n" + rows)
    job = EventCsv(place / "input.csv", durability="process")
    job.emit_started("PO2")
    for number in range(1, 101):
        if number % 10 == 0:
            job.emit_result(f"PO{number}", "ERROR", error_message=f"no answer after {number} s")
        else:
            job.emit_started(f"PO{number}")
            job.emit_result(f"PO{number}", "COMPLETED", attachment_names=[f"{number}.pdf"], attachments_found=1)
    job.emit_started("PO10")
    job.emit_result("PO10", "COMPLETED", error_message="")
    output = place / "report.html"
    job.report(output)
    return output


def test_search_and_filters_narrow_the_list_and_say_how_far(browser: Browser, page: Path) -> None:
    """Words are looked for in PO, supplier and message; a filter and a search add up; Clear takes both back."""
    browser.open(page)
    assert "1 to 50 of 120 POs" == browser.count()
    browser.search("no ANSWER")
    assert "1 to 9 of 9 POs that match, of 120 in all" == browser.count()
    assert [f"PO{number}" for number in range(20, 101, 10)] == browser.keys()
    browser.search("supplier\u00a06 no 20")
    assert ["PO20"] == browser.keys()
    browser.search("nowhere")
    assert "No PO matches. Clear the search or choose another filter." == browser.count()
    browser.driver.find_element(By.CSS_SELECTOR, ".controls button").click()
    assert ("1 to 50 of 120 POs", "") == (
        browser.count(),
        browser.run("return document.getElementById('search').value"),
    )
    for name, found in {"pending": 29, "failed": 9, "retried": 2, "interrupted": 1, "in flight": 0}.items():
        browser.choose("filter", name)
        assert found == browser.run(
            "return Number((document.getElementById('count').textContent.match(/(\\d+) POs? that/) || [0, 0])[1])"
        )
    browser.choose("filter", "status:COMPLETED")
    browser.search("PO10")
    assert ["PO10"] == browser.keys()
    assert [] == browser.complaints()


def test_the_share_that_is_done_is_that_of_status(browser: Browser, page: Path) -> None:
    """91 of 120 are 75 % in the terminal, and so on the page."""
    assert 75 == 100 * 91 // 120
    browser.open(page)
    assert ["75 %", "done"] == browser.driver.find_element(By.CSS_SELECTOR, ".tiles li").text.splitlines()[:2]


def test_pages_turn_and_orders_change(browser: Browser, page: Path) -> None:
    """Fifty at a time, forth and back, and no further than there is."""
    browser.open(page)
    following = browser.driver.find_element(By.ID, "next")
    following.click()
    following.click()
    assert ("101 to 120 of 120 POs", 20, False) == (browser.count(), len(browser.keys()), following.is_enabled())
    browser.driver.find_element(By.ID, "previous").click()
    assert "PO23" == browser.keys()[0]
    browser.choose("sort", "csv")
    assert "PO1" == browser.keys()[0]
    browser.choose("sort", "attempts")
    assert ["PO2", "PO10", "PO1"] == browser.keys()[:3]
    browser.choose("sort", "latest")
    assert "1 to 50 of 120 POs" == browser.count()


def test_what_is_not_done_comes_first(browser: Browser, page: Path) -> None:
    """In the tiles, among the sections and in the list; the links above are in the order of the page."""
    browser.open(page)
    tiles = [tile.text.splitlines()[:2] for tile in browser.driver.find_elements(By.CSS_SELECTOR, ".tiles li")]
    assert [["75 %", "done"], ["9", "failed"], ["20", "not done otherwise"]] == tiles[:3]
    assert ["9"] == browser.run("return [...document.querySelectorAll('.tiles .alarm b')].map((it) => it.textContent)")
    sections = browser.run("return [...document.querySelectorAll('main section')].map((it) => `#${it.id}`)")
    assert "#failures" == sections[0]
    links = browser.run("return [...document.querySelectorAll('nav a')].map((it) => it.getAttribute('href'))")
    assert sections == links
    assert ["PO20", "PO30"] == browser.keys()[:2]
    assert ["PO101", "PO102"] == browser.keys()[9:11]
    assert "The last run took " in browser.driver.find_element(By.ID, "top").text


def test_a_column_that_nothing_is_in_takes_no_width(browser: Browser, tmp_path: Path) -> None:
    """Without suppliers and messages there are no such columns."""
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\nPO1;\n")
    job = EventCsv(tmp_path / "input.csv", durability="process")
    job.emit_result("PO1", "COMPLETED", last_processed="")
    job.report(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    heads = browser.run("return [...document.querySelectorAll('#orders th[scope=col]')].map((it) => it.textContent)")
    assert ["PO", "STATUS", "Attempts"] == heads


def test_a_history_opens_and_closes_by_mouse(browser: Browser, page: Path) -> None:
    """One click opens what the log knows of a PO, and Close closes it."""
    browser.open(page)
    browser.search("PO10")
    browser.driver.find_element(By.XPATH, "//*[@id='rows']//button[.='PO10']").click()
    assert browser.history.startswith("History of PO10\n")
    for text in ("no answer after 10 s", "Taken up", "Result", "ERROR_MESSAGE", "(cleared)"):
        assert text in browser.history
    browser.driver.find_element(By.CSS_SELECTOR, "dialog button").click()
    assert "" == browser.history


def test_a_history_opens_and_closes_by_keyboard(browser: Browser, page: Path) -> None:
    """Enter opens it with the focus in it, Escape closes it, and the focus is back where it was."""
    browser.open(page)
    browser.search("PO10")
    for _ in range(40):  # those that are not done come first
        browser.press(Keys.TAB)
        if browser.focused() == "PO10":
            break
    browser.press(Keys.ENTER)
    assert "History of PO10" in browser.history
    assert "Close" == browser.focused()
    browser.press(Keys.ESCAPE)
    assert ("", "PO10") == (browser.history, browser.focused())


def test_every_part_leads_to_the_pos_behind_it(browser: Browser, page: Path) -> None:
    """A status, a message and the retries each show their POs in the list; the slowest open their histories."""
    browser.open(page)
    browser.driver.find_element(By.CSS_SELECTOR, "#failures button").click()
    assert [*(f"PO{number}" for number in range(20, 101, 10)), "PO10"] == browser.keys()  # which is done by now
    browser.driver.find_element(By.XPATH, "//*[@id='status']//button[text()='ERROR']").click()
    assert 9 == len(browser.keys())
    browser.driver.find_element(By.CSS_SELECTOR, "#slowest button").click()
    assert "History of PO" in browser.history


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_and_widths(browser: Browser, page: Path, theme: str, width: int) -> None:
    """Text stands out from its ground by the 4.5 to 1 that WCAG asks for; nothing is wider than the window."""
    browser.open(page, width=width, theme=theme)
    colours = browser.run("""
        const style = getComputedStyle(document.documentElement);
        const names = ['card', 'page', 'ink', 'soft', 'accent', 'alarm'];
        return Object.fromEntries(names.map((name) => [name, style.getPropertyValue('--' + name)]));
    """)
    for text, ground in (
        ("ink", "card"),
        ("soft", "card"),
        ("accent", "card"),
        ("soft", "page"),
        ("accent", "page"),
        ("ink", "alarm"),
    ):
        assert 4.5 <= contrast(colours[text], colours[ground])
    assert (theme == "dark") == (luminance(colours["page"]) < 0.2)
    assert width >= browser.run("return document.documentElement.scrollWidth")
    assert [] == browser.complaints()


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_every_control_has_a_name_and_every_id_is_one(browser: Browser, page: Path) -> None:
    """Whoever does not see the page hears what a field, a button, a chart and a section are; counts are announced."""
    browser.open(page)
    nameless = browser.run("""
        const named = (it) => it.tagName === 'BUTTON' && it.textContent.trim() || it.labels && it.labels.length
            || it.getAttribute('aria-label') || document.getElementById(it.getAttribute('aria-labelledby'));
        const all = document.querySelectorAll('button, input, select, section, form, svg[role]');
        return [...all].filter((it) => !named(it) && it.getAttribute('role') !== 'search').map((it) => it.outerHTML);
    """)
    assert [] == nameless
    ids = browser.run("return [...document.querySelectorAll('[id]')].map((it) => it.id)")
    assert len(set(ids)) == len(ids)
    assert "polite" == browser.driver.find_element(By.ID, "count").get_attribute("aria-live")
    assert ["H1"] == browser.run("return [...document.querySelectorAll('h1')].map((it) => it.tagName)")


def test_hostile_texts_are_shown_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    """Markup in keys, messages, columns and the file's name is text on the page; no dialog, no image, no complaint."""
    output = tmp_path / "report.html"
    hostile_job(tmp_path).report(output)
    browser.open(output)
    assert "<img src=x onerror=alert(1)>&.csv: 0 of 3 POs done" == browser.driver.find_element(By.TAG_NAME, "h1").text
    for button in browser.driver.find_elements(By.CSS_SELECTOR, "#rows button"):
        button.click()
        assert button.text in browser.history
        browser.press(Keys.ESCAPE)
    browser.choose("filter", "failed")
    assert 0 == browser.run("return document.querySelectorAll('img, b:not(.tiles b), iframe, main script').length")
    assert [] == browser.complaints()


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_states_are_words(browser: Browser, tmp_path: Path, rows: int) -> None:
    """A CSV without rows, and one PO without events, make a page that says so."""
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\n" + "PO1;\n" * rows)
    EventCsv(tmp_path / "input.csv").report(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    text = browser.driver.find_element(By.TAG_NAME, "main").text
    for said in ("No results yet", "No PO failed", "nothing was interrupted", "every line of the log is whole"):
        assert said in text
    assert ("1 to 1 of 1 PO" if rows else "The CSV has no rows yet.") == browser.count()
    assert [] == browser.complaints()


def test_paper_gets_the_list_and_no_controls(browser: Browser, page: Path) -> None:
    """Before it is printed, the page shows more than a screen's worth of POs, and afterwards no more than before."""
    browser.open(page)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert (120, "1 to 120 of 120 POs") == (len(browser.keys()), browser.count())
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert 50 == len(browser.keys())


def test_ten_thousand_pos(browser: Browser, tmp_path: Path) -> None:
    """All of them are found, and no more of them are drawn at once than a page of the list holds."""
    keys = [f"PO{number}" for number in range(15_000_000, 15_010_000)]
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in keys))
    job = EventCsv(tmp_path / "input.csv", durability="process")
    for number, key in enumerate(keys):
        ts = utc_text(BEGAN + timedelta(seconds=number))
        message = f"no answer after {number} s" if number % 20 == 0 else ""
        job.log.append(Event(f"x-{number}", ts, "started", key, {}))
        cells = {"STATUS": "ERROR" if message else "COMPLETED", "ERROR_MESSAGE": message}
        job.log.append(Event(f"y-{number}", ts, "result", key, cells))
    job.report(tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert "1 to 50 of 10,000 POs" == browser.count()
    assert 3_000 > browser.run("return document.querySelectorAll('*').length")
    browser.search("answer 9980")
    assert ["PO15009980"] == browser.keys()
    browser.driver.find_element(By.CSS_SELECTOR, "#rows button").click()
    assert "no answer after 9980 s" in browser.history
    assert [] == browser.complaints()
