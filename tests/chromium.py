"""A headless Chromium at the other end of a pipe (the DevTools protocol), for tests of pages."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0  # seconds


class Chromium:
    """One process, which opens pages."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads from 3 and writes to 4; numbers that are neither can be put there in any order.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        redirect = 'ins=$1 outs=$2; shift 2; exec "$@" 3<&$ins 4>&$outs'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", *map(str, ends), program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._in, self._out = ours_in, ours_out
        self._count, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def await_event(self, method: str, session: str) -> None:
        while not any(each["method"] == method and each["sessionId"] == session for each in self.events):
            self._read()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], PATIENCE)[0], "Chromium does not answer"
            read = os.read(self._in, 2**20)
            assert read, "Chromium has ended"
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message


class Page:
    """A page that was opened and loaded."""

    def __init__(
        self, browser: Chromium, file: Path, *, width: int = 1000, dark: bool = False, still: bool = True,
        scripts: bool = True,
    ) -> None:  # fmt: skip
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=media)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.bringToFront")
        self.call("Page.navigate", url=file.as_uri())
        browser.await_event("Page.loadEventFired", self.session)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {" ": " ", "Enter": "\r"}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    def becomes(self, expression: str, wanted: Any) -> None:
        end = time.monotonic() + PATIENCE
        while self.value(expression) != wanted:
            assert time.monotonic() < end, (expression, self.value(expression))
            time.sleep(0.05)

    def requests(self) -> list[str]:
        return [each["request"]["url"] for each in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was written to the console, exceptions and broken rules included."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for kind in kinds for event in self._events(kind)]

    def pictures(self) -> list[dict[str, Any]]:
        """Return the images as a screen reader gets them."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [each for each in nodes if not each["ignored"] and each["role"]["value"] in ("image", "img")]

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.value("1")  # what came before has arrived
        return [
            each["params"] for each in self.browser.events
            if each["method"] == method and each.get("sessionId") == self.session
        ]  # fmt: skip
