"""The page in a real headless Chromium: what it asks for, says and looks like at three widths.

Screenshots lie in $EDGEPRUNE_SCREENSHOTS, where it is set.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.report.folder import read_reports, slug
from edgeprune.report.page import write_page
from edgeprune.report.report import Report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
webdriver: Any = pytest.importorskip("selenium.webdriver")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="NO BROWSER LOOKED AT THE PAGE: apt-get install -y chromium chromium-driver",
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDTHS = (360, 800, 1280)
SCHEMES = ("light", "dark")
READABLE = 4.5  # the contrast that WCAG 2 asks of text, level AA
SMALLEST_PX = 8.0  # of type in a picture, on a phone


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def pages(run: Path, make_run: Callable[..., Path]) -> dict[str, Path]:
    """A page of one run, and one that compares two."""
    other = make_run("50%", name="other", environment={"cpu": "another"})
    return {
        "run": write_page([run]),
        "comparison": write_page([run, other], run.parent / "both.html"),
    }


def look_at(browser: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def requests(browser: Any) -> list[str]:
    """Every address that was asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent]


def shoot(browser: Any, name: str) -> None:
    if folder := os.environ.get("EDGEPRUNE_SCREENSHOTS"):
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_it_asks_for_nothing_and_complains_of_nothing(
    browser: Any, pages: dict[str, Path], kind: str
) -> None:
    browser.get("about:blank")
    requests(browser), browser.get_log("browser")
    look_at(browser, pages[kind])
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert asked == [pages[kind].as_uri()]
    assert browser.get_log("browser") == []


def test_what_it_shows_is_what_report_json_says(
    browser: Any, run: Path, pages: dict[str, Path]
) -> None:
    look_at(browser, pages["run"])
    shown = browser.execute_script(
        """return [...document.querySelectorAll("[data-budget] data[data-field]")].map(x =>
        [x.closest("[data-budget]").dataset.budget, x.dataset.field, x.value, x.innerText])"""
    )
    reports = {slug(report.budget.text): report for report in read_reports(run)}
    assert {budget for budget, *_ in shown} == reports.keys()
    assert len(shown) > 40
    for budget, path, value, text in shown:
        assert json.loads(value) == _field(reports[budget], path)
        assert text, path


def _field(report: Report, path: str) -> Any:
    found = json.loads(report.to_json())
    for name in path.split("."):
        found = found[name]
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_it_fits_a_phone_a_tablet_and_a_desk(
    browser: Any, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    look_at(browser, pages[kind], width, scheme)
    shoot(browser, f"{kind}-{width}-{scheme}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    smallest = browser.execute_script(
        """return Math.min(...[...document.querySelectorAll("svg text")].map(x => {
            const seen = x.getScreenCTM()
            return parseFloat(getComputedStyle(x).fontSize) * Math.hypot(seen.a, seen.b)
        }))"""
    )
    assert smallest >= SMALLEST_PX


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_no_word_of_a_picture_is_cut_off_or_lies_on_another(
    browser: Any, pages: dict[str, Path], kind: str
) -> None:
    look_at(browser, pages[kind])
    found = browser.execute_script(
        """
        const wrong = []
        for (const svg of document.querySelectorAll(".picture svg")) {
            const edge = svg.getBoundingClientRect()
            const words = [...svg.querySelectorAll("text")].filter(x => x.textContent.trim())
            const boxes = words.map(x => x.getBoundingClientRect())
            boxes.forEach((a, i) => {
                const name = svg.closest("figure").id + ": " + words[i].textContent
                if (a.left < edge.left - 2 || a.right > edge.right + 2 ||
                    a.top < edge.top - 2 || a.bottom > edge.bottom + 2) wrong.push(name + " is cut")
                boxes.slice(0, i).forEach((b, j) => {
                    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left)
                    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)
                    if (wide > 2 && high > 4) wrong.push(name + " on " + words[j].textContent)
                })
            })
        }
        return wrong
        """
    )
    assert found == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out_from_its_ground(
    browser: Any, pages: dict[str, Path], scheme: str
) -> None:
    look_at(browser, pages["run"], scheme=scheme)
    colours = browser.execute_script(
        """
        const style = getComputedStyle(document.documentElement)
        const names = ["paper", "wash", "ink", "muted", "accent", "met", "missed", "inconclusive"]
        return Object.fromEntries(names.map(x => [x, style.getPropertyValue("--" + x).trim()]))
        """
    )
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == (
        f"rgb({', '.join(str(part) for part in _rgb(colours['paper']))})"
    )
    for name in ("ink", "muted", "accent", "met", "missed", "inconclusive"):
        for ground in ("paper", "wash"):
            assert _contrast(colours[name], colours[ground]) >= READABLE, (name, ground)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _contrast(one: str, other: str) -> float:
    """By WCAG 2: of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [part / 255 for part in _rgb(colour)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_keyboard_reaches_everything_and_sees_where_it_is(
    browser: Any, pages: dict[str, Path]
) -> None:
    from selenium.webdriver.common.keys import Keys

    look_at(browser, pages["run"])
    reached = []
    for _ in range(12):
        active = browser.switch_to.active_element
        active.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        reached.append((active.tag_name, active.get_attribute("href") or ""))
        assert active.value_of_css_property("outline-style") != "none"
    assert reached[0] == ("a", f"{pages['run'].as_uri()}#main")
    assert {tag for tag, _ in reached} >= {"a", "summary"}


def test_a_screen_reader_finds_landmarks_headings_and_names(
    browser: Any, pages: dict[str, Path]
) -> None:
    look_at(browser, pages["run"])
    browser.execute_cdp_cmd("Accessibility.enable", {})
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            roles.setdefault(node["role"]["value"], []).append(name)
    assert {"banner", "navigation", "main", "contentinfo"} <= roles.keys()
    assert "Was the budget met?" in roles["heading"]
    pictures = roles.get("image", []) + roles.get("img", [])
    assert len(pictures) >= 12
    for role in ("region", "table", "link", "figure"):
        assert all(roles[role]), role
    assert all(pictures)
