"""Headless Chromium driven through its DevTools protocol: open a page, take a picture of it, close."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
         "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--disable-quic", "--hide-scrollbars", "--disable-dev-shm-usage")


def chromium() -> str | None:
    """Path of Chromium, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One headless browser with one page; a context manager."""

    def __init__(self, url: str, size: tuple[int, int] = (1280, 800)) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [chromium() or "chromium", *FLAGS, f"--window-size={size[0]},{size[1]}", "--remote-debugging-port=0",
                   f"--user-data-dir={self._profile.name}", url]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._socket = connect(self._page_address(), max_size=None)
        self._count = 0

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._profile.cleanup()

    def _page_address(self, timeout_s: float = 60.0) -> str:
        port_file = Path(self._profile.name) / "DevToolsActivePort"
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if port_file.is_file() and port_file.read_text().strip():
                port = port_file.read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [p for p in json.load(answer) if p["type"] == "page"]
                if pages:
                    return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        raise TimeoutError("Chromium opened no page")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def screenshot(self, path: Path) -> None:
        """PNG of the page as it is now."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


def levels_seen(path: Path, colours: dict[str, tuple[int, int, int]]) -> set[str]:
    """Names of the colours whose hue covers 200 pixels or more of a picture: light changes brightness, hue stays."""
    hue, saturation, value = np.asarray(Image.open(path).convert("HSV"), int).transpose(2, 0, 1)
    scene = slice(0, hue.shape[1] * 7 // 10)  # the panel is on the right
    seen = set()
    for name, colour in colours.items():
        wanted = np.asarray(Image.new("RGB", (1, 1), colour).convert("HSV"), int)[0, 0, 0]
        distance = np.abs((hue - wanted + 128) % 256 - 128)
        if ((distance < 5) & (saturation > 40) & (value > 60))[:, scene].sum() >= 200:
            seen.add(name)
    return seen
