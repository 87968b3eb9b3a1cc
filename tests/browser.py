"""A real browser without a screen, for tests of pages: Chromium, spoken to by its pipe (Chrome DevTools Protocol)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PATIENCE = 60.0  # seconds for an answer


class Browser:
    """One tab. `errors` collects exceptions, complaints of the console, and whatever a page tried to load elsewhere."""

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self.home = tempfile.mkdtemp()
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
            "--disable-background-networking --disable-component-update --remote-debugging-pipe"
        )
        # It reads from 3 and writes to 4; both ends are moved there by way of numbers that are surely free.
        command = f'exec "$0" {flags} --user-data-dir="$1" about:blank 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, self.home],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest, self._session = 0, b"", None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End the process, and remove what it wrote."""
        os.close(self._out)  # it ends with its pipe
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        os.close(self._in)
        shutil.rmtree(self.home, ignore_errors=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method, and wait for what it gives."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(PATIENCE)
            if answer is None:
                raise TimeoutError(f"{method} had no answer in {PATIENCE:g} s")
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The next message; events are taken down."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            self._rest += os.read(self._in, 1 << 16)
        one, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(one)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"].get("exception", params)))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
        return message

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Of the window, in CSS pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)

    def open(self, url: str, scripts: bool = True) -> None:
        """Load a page, and wait until it is complete."""
        self.errors.clear()
        self.requests.clear()
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.send("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = self._read(end - time.monotonic())
            if message and message.get("method") == "Page.loadEventFired":
                return
        raise TimeoutError(f"{url} was not loaded in {PATIENCE:g} s")

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.1)
        return value

    def text(self, selector: str) -> str:
        """Of the first element that fits."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def choose(self, selector: str, value: Any) -> None:
        """Set a control, as a reader does."""
        self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            f" one.value = {json.dumps(str(value))};"
            " one.dispatchEvent(new Event('input', {bubbles: true}));"
            " one.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        x, y = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'center'});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def wider_than_the_window(self) -> int:
        """Pixels by which the page can be scrolled to the side."""
        return self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def screenshot(self, file: Path, whole: bool = True) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
