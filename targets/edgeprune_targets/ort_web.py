"""ONNX Runtime web, which is WebAssembly: in node, and in a page of a headless browser."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeprune.measure.environment import NodeEnvironment, Package
from edgeprune.measure.target import Check, Program, Runtime

WEB = Path(__file__).with_name("web")
BENCH, SESSION = WEB / "bench.mjs", WEB / "session.mjs"
ENVIRONMENT = NodeEnvironment("ort-web", (Package("onnxruntime-web", tested="1.30.0"),))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class OrtWeb(Runtime):
    """Runs the ONNX file as it is, in node: what a page does, without the page."""

    environment = ENVIRONMENT

    def check(self) -> Check:
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx

    def program(self) -> Program:
        words = ("node", str(WEB / "node.mjs"), str(ENVIRONMENT.modules))
        return Program(BENCH, SESSION, local=words, portable=False)


class OrtChromium(Runtime):
    """Runs the ONNX file as it is, in a page that is isolated, as threads and clocks need it."""

    environment = ENVIRONMENT

    def check(self) -> Check:
        if _browser() is None:
            remedy = "install Chromium (Debian: apt install chromium)"
            return Check(False, why="there is no browser", remedy=remedy)
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx

    def program(self) -> Program:
        browser = _browser() or BROWSERS[0]
        words = ("node", str(WEB / "browser.mjs"), browser, str(ENVIRONMENT.modules))
        return Program(BENCH, SESSION, local=words, portable=False)


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)
