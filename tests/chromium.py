"""A headless Chromium, driven over its debugging pipe: no driver and no package is needed.

Messages are JSON ended by a zero byte; Chromium reads its file descriptor 3 and writes to 4.
"""

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 300.0  # far above what anything here takes; the machine may be busy

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have, and the pages are our own
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Its program: the one that `LPSNET_CHROMIUM` names, or one that is installed; None where none of them runs."""
    named = os.environ.get("LPSNET_CHROMIUM")
    programs = [named] if named else [path for path in map(shutil.which, NAMES) if path]
    return next(filter(_runs, programs), None)


def _runs(program: str) -> bool:
    """Some systems have a program of that name that only says where to get the browser."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=TIMEOUT_S).returncode == 0
    except OSError:
        return False


class Chromium:
    """A browser with one page, closed at the end of its `with` block."""

    def __init__(self, program: str, *flags: str) -> None:
        self._profile = tempfile.mkdtemp()
        read_by_it, self._to = _pipe()
        self._from, written_by_it = _pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, read_by_it, 3),
            (os.POSIX_SPAWN_DUP2, written_by_it, 4),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        arguments = [program, *_FLAGS, f"--user-data-dir={self._profile}", *flags, "about:blank"]
        self._process = os.posix_spawn(program, arguments, os.environ, file_actions=actions)
        os.close(read_by_it)
        os.close(written_by_it)
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self._attach()

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = {}
        self._send({"id": next(self._numbers), "method": "Browser.close"})
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; events that come meanwhile are kept in `events`."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": parameters, **self._session})
        while (message := self._receive()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        result: dict[str, Any] = message["result"]
        return result

    def evaluate(self, code: str) -> Any:
        """The JSON value of a JavaScript expression, or of the promise that it gives."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + TIMEOUT_S
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never came true: {condition}; {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Put files into a file input, as the visitor would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve()) for path in paths])

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def requests(self) -> list[str]:
        """The addresses that the page has asked for since it was opened."""
        return [event["params"]["request"]["url"] for event in self.events_of("Network.requestWillBeSent")]

    def events_of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") == method]

    def _send(self, message: dict[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._from], [], [], TIMEOUT_S)[0], "Chromium says nothing"
            part = os.read(self._from, 1 << 16)
            assert part, "Chromium has ended"
            self._received += part
        message, self._received = self._received.split(b"\0", 1)
        parsed: dict[str, Any] = json.loads(message)
        return parsed


def _pipe() -> tuple[int, int]:
    """A pipe's two ends, with numbers far from those that Chromium gets."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
