"""How long the report of a large campaign takes and how large it is, on a made-up one; fails where a bar is missed.

Bars: 387 runs, every figure and table as files too, in 60 s and a page of 3 MB.
"""

import os
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import fabricated_campaign
from jouleline.report import inputs, page

RUNS, BAR_S, BAR_BYTES = 387, 60, 3_000_000
SHAPES = product(range(1, 13), (64, 128, 256, 512), (32, 64, 128, 256), (8, 16))


def main() -> int:
    """Print time and size beside their bars; 1 where one is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = fabricated_campaign.write(folder, more=list(SHAPES)[: RUNS - 26])
        begin = time.perf_counter()
        page.write(inputs.load(**arguments), folder / "report.html", folder / "report")
        taken_s, size = time.perf_counter() - begin, (folder / "report.html").stat().st_size
        parts = sum(1 for path in (folder / "report").rglob("*") if path.is_file())
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    ok = taken_s <= BAR_S and size <= BAR_BYTES
    print(
        f"{RUNS} runs: {taken_s:.1f} s (bar {BAR_S}), of CPU {time.process_time():.1f} s; {parts} files beside it"
    )
    print(f"page {size / 1e6:.2f} MB (bar {BAR_BYTES / 1e6:g})   {'ok' if ok else 'MISSED'}")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
