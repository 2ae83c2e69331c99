"""A headless Chromium, controlled over its pipe (DevTools protocol) with only the standard library."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.slurm import packages

PREFIX = Path(sys.prefix) / "chromium"
HOW = "install chromium (Debian: apt-get install chromium), or put it on PATH"


def program() -> str | None:
    """Chromium on this machine, or the one that `obtain` has unpacked. None where there is none."""
    unpacked = PREFIX / "usr/lib/chromium/chromium"
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), str(unpacked) if unpacked.exists() else None)


def obtain() -> str:
    """Chromium on this machine, else Debian's packages of it, unpacked once next to the environment.

    Raises `packages.Unavailable`, which says why there is none.
    """
    if not program():
        packages.unpack(PREFIX, packages.names(Path(__file__).with_name("chromium.txt")), HOW)
    return program() or ""


def _libraries(path: str) -> dict[str, str]:
    """The environment that unpacked packages need to be found."""
    if not path.startswith(str(PREFIX)):
        return {}
    folders = [PREFIX / part / packages.TRIPLET for part in ("usr/lib", "lib")]
    found = [*folders, folders[0] / "pulseaudio"]
    fonts = {"XDG_DATA_HOME": str(PREFIX / "usr/share"), "FONTCONFIG_PATH": str(PREFIX / "etc/fonts")}
    return {"LD_LIBRARY_PATH": ":".join(map(str, found)), **fonts}


class Browser:
    """One tab. `heard` holds the console messages, errors and requests since the last page."""

    def __init__(self, path: str):
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        ours, theirs = os.pipe(), os.pipe()  # commands, answers

        def descriptors():  # Chromium reads commands from 3 and answers on 4
            os.dup2(ours[0], 10)
            os.dup2(theirs[1], 11)
            os.dup2(10, 3)
            os.dup2(11, 4)

        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--hide-scrollbars",
        ]
        options += [
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={self.profile.name}",
        ]
        self.process = subprocess.Popen(
            [path, *options, "about:blank"],
            preexec_fn=descriptors,
            close_fds=False,
            stderr=subprocess.DEVNULL,
            env=os.environ | _libraries(path),
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.commands, self.answers = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb", 0)
        self.number, self.rest, self.session, self.heard = 0, b"", None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.commands.close()
        self.answers.close()
        self.profile.cleanup()

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result. Messages of the page are kept in `heard` meanwhile."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not (read := os.read(self.answers.fileno(), 1 << 16)):
                raise RuntimeError("chromium ended")
            self.rest += read
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        method, said = message.get("method", ""), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.heard.append(("request", said["request"]["url"]))
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.heard.append((method, json.dumps(said)[:500]))
        return message

    def look(self, width: int, dark: bool = False, printed: bool = False, height: int = 900) -> None:
        """Set the screen (CSS pixels), the colour scheme, and whether the page is printed."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", media="print" if printed else "screen", features=[scheme])
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, page: Path) -> None:
        """Load a file and wait until it is complete."""
        self.heard.clear()
        self("Page.navigate", url=page.as_uri())
        while self.run("document.readyState") != "complete":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page, as JSON."""
        done = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:800])
        return done["result"].get("value")

    def picture(self, path: Path, clip: dict[str, float] | None = None, scale: float = 1) -> None:
        """A PNG of the whole page, or of a part of it (x, y, width, height in CSS pixels)."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = clip or {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        shot = self(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**clip, "scale": scale}
        )
        path.write_bytes(base64.b64decode(shot["data"]))
