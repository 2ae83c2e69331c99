"""Print as a shell reads it what pip is told in `make setup`: of a user's settings, where packages come from.

A target, a prefix or builds from source, in a variable or in any pip.conf, would set up something else.
"""

import ast
import shlex
import subprocess
import sys

KEPT = (
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert"),
    *("proxy", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir", "keyring-provider"),
)
# What comes later counts more, as pip has it.
SECTIONS = ("global", "install", ":env:")


def kept(listing: str) -> dict[str, str]:
    """{setting: value} of those to keep, from what `pip config list` prints.

    >>> kept("global.target='/x'\\nglobal.index-url='https://a'\\n:env:.index-url='https://b'")
    {'index-url': 'https://b'}
    """
    found = {}
    for name, _, value in (line.partition("=") for line in listing.splitlines()):
        section, _, key = name.rpartition(".")
        if key in KEPT and section in SECTIONS:
            found[SECTIONS.index(section), key] = " ".join(ast.literal_eval(value).split())
    return {key: value for (_, key), value in sorted(found.items())}


def main() -> int:
    """The exit code is pip's."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    for key, value in kept(done.stdout).items():
        print(f"export PIP_{key.upper().replace('-', '_')}={shlex.quote(value)}")
    print("export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1")
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
