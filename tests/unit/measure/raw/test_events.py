"""The event log: nobody waits for its disk, and a partly written line is completed later."""

import os
import subprocess
import sys
import threading
import time

from jouleline.measure.raw.events import EventLog, read_events


def test_who_adds_an_event_does_not_wait_for_the_disk(tmp_path):
    log = EventLog(tmp_path)
    # A pipe that nobody reads: opening it hangs, as a file on a server that is gone does.
    os.mkfifo(log.path)
    log.add("first")
    writer = threading.Thread(target=log.write, daemon=True)
    writer.start()
    time.sleep(0.1)
    log.add("second")
    # It came back while the writer still hangs.
    assert writer.is_alive()
    reader = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(5)
    log.write()
    said = os.read(reader, 10_000).decode().splitlines()
    assert len(said) == 2 and '"first"' in said[0] and '"second"' in said[1]


def test_a_disk_that_takes_a_part_of_a_line_gets_the_rest_later(tmp_path):
    program = (
        "import resource, signal, sys, pathlib\n"
        "from jouleline.measure.raw.events import EventLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = EventLog(pathlib.Path(sys.argv[1]))\n"
        "for number in range(4): log.add('event', number=number)\n"
        # No file may grow beyond two and a half lines, for the time being.
        "length = len(log.waiting[0])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(2.5 * length), -1))\n"
        "log.write(), log.write()\n"
        "print(log.path.stat().st_size - int(2.5 * length))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "log.write()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert [event["number"] for event in read_events(tmp_path)] == [0, 1, 2, 3]
