"""How large is a report's page, and how soon does it open?

    python benchmarks/report_page.py RUN… [--times 9]

Makes the page of each run, and of several the one that compares them, and opens each in a headless
Chromium, each time as if for the first time. Writes benchmarks/results/report_page.json: bytes,
milliseconds until it is painted and until it has loaded, requests, and lines on the console.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver

from edgeprune.report.page import write_page

RESULT = Path(__file__).parent / "results" / "report_page.json"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
TIMES = """
const loaded = performance.getEntriesByType("navigation")[0].loadEventEnd
const painted = performance.getEntriesByName("first-contentful-paint")[0]
return {loaded, painted: painted ? painted.startTime : null,
        requests: performance.getEntriesByType("resource").length}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=9)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pages = {
            run.name: write_page([run], Path(scratch) / f"{at}.html")
            for at, run in enumerate(asked.runs)
        }
        if len(asked.runs) > 1:
            pages["all compared"] = write_page(asked.runs, Path(scratch) / "all.html")
        rows = {name: opened(page, asked.times) for name, page in pages.items()}
        version = driver_of(Path(scratch), lambda browser: browser.capabilities["browserVersion"])
    result = {
        "what": "pages of runs in a headless Chromium, from a file, each time in a new browser; "
        "milliseconds from the start of the navigation",
        "command": "python benchmarks/report_page.py RUN…",
        "chromium": version,
        "machine": platform.machine(),
        "pages": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def opened(page: Path, times: int) -> dict[str, Any]:
    found = [driver_of(page.parent, lambda browser: look(browser, page)) for _ in range(times)]
    return {
        "bytes": page.stat().st_size,
        "painted_ms": spread([one["painted"] for one in found]),
        "loaded_ms": spread([one["loaded"] for one in found]),
        "requests": max(one["requests"] for one in found),
        "console_lines": max(one["console"] for one in found),
    }


def driver_of(scratch: Path, use: Any) -> Any:
    """What `use` finds in a browser that is new."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory(dir=scratch) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            return use(browser)
        finally:
            browser.quit()


def look(browser: Any, page: Path) -> dict[str, Any]:
    browser.get(page.as_uri())
    times: dict[str, Any] = browser.execute_script(TIMES)
    return times | {"console": len(browser.get_log("browser"))}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "most": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
