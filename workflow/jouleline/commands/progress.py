"""A line on stderr that says how far a long command is."""

import sys
import time
from typing import Self

QUIET_S = 2.0
"""A command that is done sooner says nothing."""


class Progress:
    """Counts the parts of a piece of work. A terminal redraws the line; elsewhere each part gets a line."""

    def __init__(self, parts: int):
        self.parts, self.done, self.began_s = parts, -1, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def announce(self, words: str) -> None:
        """Announce a part that is known to take long."""
        self._say(words)
        self.done = 0

    def next(self, words: str) -> None:
        """Start the next part; the one before it is done."""
        self.done += 1
        passed_s = time.monotonic() - self.began_s
        if passed_s < QUIET_S or self.done < 1:
            return
        left_s = passed_s / self.done * (self.parts - self.done)
        self._say(f"{self.done} of {self.parts} done, {passed_s:.0f} s, about {left_s:.0f} s left: {words}")

    def __exit__(self, *exception) -> None:
        if sys.stderr.isatty():
            self._say("")

    def _say(self, line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
