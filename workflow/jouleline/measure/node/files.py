"""The files by which the agents of a job, their ranks and their sidecars meet. Only this module has their names.

In the job's folder (`raw`), which all nodes share:

| name | written by | read by |
|---|---|---|
| hello-<node>.json | every agent but node 0's | node 0's agent |
| meeting.json | node 0's agent | the other agents |
| state-<node>.json | every agent, when its part has ended | all agents |
| node-<node>/ | that node's agent, ranks and sidecar | node 0's agent |
| merged/ | node 0's agent | node 0's agent |

In a node's folder (a calibration's too):

| name | written by | read by |
|---|---|---|
| rank-<local>.json | a rank: what it did, or why it failed | its agent |
| rank-<local>.log | a rank: all that it prints | people; its agent, where it failed |
| prepared-<local> | a rank: data and model are on the CPU | its agent |
| go.json | the agent: {"tick_s": the meter's longest tick or null} | its ranks |
| training | a rank: the engine is there | its agent |
| markers/ | the ranks | the sidecar |
| sidecar.log | the sidecar: all that it prints | people; its agent, where it failed |
| job.json | the calibration | its ranks |
| ready-<local>, measured, store | a calibration's ranks | the other ranks |
| entries.json | a calibration's rank 0 | the calibration |
| meter/ | a calibration's sidecar | the calibration |

Only `sidecar.client` knows ready.json and stop.
"""

from pathlib import Path


def hello_file(raw: Path, node: int) -> Path:
    return raw / f"hello-{node}.json"


def meeting_file(raw: Path) -> Path:
    return raw / "meeting.json"


def state_file(raw: Path, node: int) -> Path:
    return raw / f"state-{node}.json"


def node_folder(raw: Path, node: int) -> Path:
    return raw / f"node-{node}"


def merged_folder(raw: Path) -> Path:
    return raw / "merged"


def result_file(folder: Path, local: int) -> Path:
    return folder / f"rank-{local}.json"


def rank_log(folder: Path, local: int) -> Path:
    return folder / f"rank-{local}.log"


def prepared_file(folder: Path, local: int) -> Path:
    return folder / f"prepared-{local}"


def go_file(folder: Path) -> Path:
    return folder / "go.json"


def training_file(folder: Path) -> Path:
    return folder / "training"


def markers_folder(folder: Path) -> Path:
    return folder / "markers"


def sidecar_log(folder: Path) -> Path:
    return folder / "sidecar.log"


def job_file(folder: Path) -> Path:
    return folder / "job.json"


def ready_file(folder: Path, local: int) -> Path:
    return folder / f"ready-{local}"


def measured_file(folder: Path) -> Path:
    return folder / "measured"


def store_file(folder: Path) -> Path:
    return folder / "store"


def entries_file(folder: Path) -> Path:
    return folder / "entries.json"


def meter_folder(folder: Path) -> Path:
    return folder / "meter"


def last_lines(path: Path, count: int = 1) -> list[str]:
    """The last `count` lines of a log that are not empty. Fewer if there are fewer; none without the file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-count:]
