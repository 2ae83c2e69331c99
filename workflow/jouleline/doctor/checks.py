"""From the facts of a node to findings. Every check is a pure function of the facts and of what is asked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jouleline.measure.node.gpus import LEAST_CAPABILITY
from jouleline.measure.node.torch_build import LEAST_DRIVER, driver_problem, kernel_problem
from jouleline.units import GIB

OK, NOTE, FAILED, NONE = "ok", "note", "FAILED", "-"
# NCCL moves data between the ranks of a node through /dev/shm. NVIDIA's containers ask for this size.
SHM_BYTE = GIB
SCRATCH_BYTE = GIB
# The sidecar reads every 20 ms. Longer calls cannot keep this pace with several GPUs.
LATENCY_S = 0.005
MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Wish:
    """What a campaign will ask of the node."""

    devices: int = 1
    nodes: int = 1
    precisions: tuple[str, ...] = ("fp32",)
    hub: bool = False


@dataclass(frozen=True)
class Finding:
    """One line of the table. `state`: ok, note (works, but should be known), FAILED, - (nothing to check)."""

    check: str
    state: str
    found: str
    needed: str = ""
    remedy: str = ""


def findings(facts: Facts, wish: Wish) -> list[Finding]:
    """Every check of this node. Checks of GPUs are there even where it has none."""
    return [one for check in (*_GPU, *_NODE) for one in check(facts, wish)]


def of_gpus(title: str) -> Callable:
    """A check that needs GPUs. Where there are none, one line says so."""

    def wrap(check: Callable[[Facts, Wish], Iterator[Finding]]) -> Callable[[Facts, Wish], Iterator[Finding]]:
        def checked(facts: Facts, wish: Wish) -> Iterator[Finding]:
            found = list(check(facts, wish)) if facts["gpus"] else []
            yield from found or [Finding(title, NONE, "no GPU")]

        return checked

    return wrap


def device(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Whether NVML answers and shows as many GPUs as asked for."""
    if facts["device"] == "cpu":
        yield Finding(
            "device",
            OK,
            f"CPU: {facts['cpu']}",
            "",
            "GPUs are not looked for; ask for one with --device cuda",
        )
        return
    if facts["nvml_error"]:
        yield Finding(
            "device", FAILED, facts["nvml_error"], "NVML", "load the driver, or ask Slurm for a GPU (--gres)"
        )
        return
    seen, counted = len(facts["gpus"]), facts["nvml_count"]
    names = ", ".join(sorted({gpu["name"] for gpu in facts["gpus"]}))
    hidden = f"; NVML counts {counted}" if counted != seen else ""
    found = f"{seen} {names}{hidden}"
    if seen < wish.devices:
        remedy = f"ask for --gres=gpu:{wish.devices}, or lower gpus_per_node"
        yield Finding("device", FAILED, found, f"{wish.devices} visible GPUs", remedy)
    else:
        yield Finding("device", OK, found, f"{wish.devices} visible GPUs")


@of_gpus("answers")
def answers(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """GPUs that NVML counts but that do not answer."""
    silent = [str(gpu["index"]) for gpu in facts["gpus"] if gpu["silent"]]
    if silent:
        found, remedy = (
            f"GPU {', '.join(silent)} does not answer",
            "reset it (nvidia-smi -r) or leave the node out",
        )
        yield Finding("answers", FAILED, found, "an answer of every GPU", remedy)
    else:
        yield Finding("answers", OK, f"all, after {facts['look_s']:.1f} s")


@of_gpus("torch")
def torch_cuda(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Whether torch was built for CUDA."""
    build = facts["torch"]
    if build["cuda"]:
        yield Finding("torch", OK, f"{build['version']}, CUDA {build['cuda']}", "a CUDA build")
    else:
        yield Finding(
            "torch", FAILED, f"{build['version']}, no CUDA", "a CUDA build", "run `make setup TORCH=cuda`"
        )


@of_gpus("driver")
def driver(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Compare the driver's CUDA with torch's."""
    has, build = facts["driver_cuda"], facts["torch"]
    text = "not said" if has is None else f"for CUDA {has // 1000}.{has % 1000 // 10}"
    least = LEAST_DRIVER.get(int(build["cuda"].split(".")[0])) if build["cuda"] else None
    needed = f"{least} or later" if least else ""
    problem = driver_problem(build, facts["driver"], has)
    remedy = problem.partition("; ")[2] if problem else ""
    yield Finding("driver", FAILED if problem else OK, f"{facts['driver']}, {text}", needed, remedy)


@of_gpus("kernels")
def kernels(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Compare the compute capability with the kernels in torch, and with the precisions of the campaign."""
    build, needed = facts["torch"], ", ".join(facts["torch"]["arch"])
    for name, capability in dict.fromkeys((gpu["name"], gpu["capability"]) for gpu in facts["gpus"]):
        problem = kernel_problem(build, name, capability)
        remedy = problem.partition("; ")[2] if problem else ""
        yield Finding("kernels", FAILED if problem else OK, f"{name}: {capability}", needed, remedy)
        for precision in wish.precisions:
            least = LEAST_CAPABILITY.get(precision, (0, 0))
            if capability and tuple(int(part) for part in capability.split(".")) < least:
                asked = f"{least[0]}.{least[1]} for {precision}"
                yield Finding(
                    "precision", FAILED, f"{name}: {capability}", asked, "use fp32, or fp16 from 7.0 on"
                )


@of_gpus("persistence")
def persistence(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Without persistence mode every job has to start the GPUs again, and an idle GPU draws another power."""
    off = [str(gpu["index"]) for gpu in facts["gpus"] if gpu["persistence"] is False]
    if off:
        remedy = "nvidia-smi -pm 1, or the nvidia-persistenced service; jobs wait for the GPUs meanwhile"
        yield Finding("persistence", NOTE, f"off on GPU {', '.join(off)}", "on", remedy)
    else:
        yield Finding("persistence", OK, "on", "on")


@of_gpus("compute mode")
def compute_mode(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """A GPU in mode Prohibited accepts no program."""
    modes = {gpu["compute_mode"] for gpu in facts["gpus"]} - {None}
    found = ", ".join(MODES.get(mode, str(mode)) for mode in sorted(modes)) or "not said"
    if 2 in modes:
        yield Finding("compute mode", FAILED, found, "Default or Exclusive_Process", "nvidia-smi -c DEFAULT")
    else:
        yield Finding("compute mode", OK, found, "Default or Exclusive_Process")


@of_gpus("MIG")
def mig(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """A slice has no energy counter of its own, and NCCL accepts only one slice of a GPU."""
    split = [gpu for gpu in facts["gpus"] if gpu["slices"]]
    if not split:
        yield Finding("MIG", OK, "off", "off")
        return
    found = ", ".join(f"GPU {gpu['index']}: {gpu['slices']} slices" for gpu in split)
    if wish.devices > len(facts["gpus"]):
        remedy = (
            "NCCL refuses two slices of one GPU: lower gpus_per_node, or turn MIG off (nvidia-smi -mig 0)"
        )
        yield Finding("MIG", FAILED, found, "one slice of each GPU", remedy)
    else:
        yield Finding(
            "MIG", NOTE, found, "off", "energy is that of the whole GPU, with what other slices draw"
        )


@of_gpus("other processes")
def processes(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """The energy of another program would be counted, and its memory is missing."""
    busy = [gpu for gpu in facts["gpus"] if gpu["processes"]]
    if busy:
        found = ", ".join(f"GPU {gpu['index']}: {len(gpu['processes'])}" for gpu in busy)
        remedy = "let nobody else on the GPU: Slurm's --exclusive (node.exclusive: true), or another node"
        yield Finding("other processes", FAILED, found, "none", remedy)
    elif all(gpu["processes"] is None for gpu in facts["gpus"]):
        yield Finding("other processes", NOTE, "not said", "none")
    else:
        yield Finding("other processes", OK, "none", "none")


@of_gpus("energy counter")
def counter(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Without a counter the energy is integrated from samples of the power."""
    without = [str(gpu["index"]) for gpu in facts["gpus"] if gpu["counter"] is False]
    ticks = [gpu["tick_s"] for gpu in facts["gpus"] if gpu["tick_s"]]
    if without:
        remedy = "energy is integrated from sampled power; sharp phases are less certain"
        yield Finding("energy counter", NOTE, f"none on GPU {', '.join(without)}", "one", remedy)
    elif ticks:
        yield Finding("energy counter", OK, f"moves every {1e3 * max(ticks):.0f} ms", "one")
    else:
        yield Finding(
            "energy counter", FAILED, "it does not move", "one that moves", "reset the GPU (nvidia-smi -r)"
        )


@of_gpus("NVML calls")
def latency(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """A slow call leaves gaps between the samples."""
    times_s = [gpu["latency_s"] for gpu in facts["gpus"] if gpu["latency_s"] is not None]
    if not times_s:
        yield Finding("NVML calls", NOTE, "not measured")
        return
    found, needed = f"{1e6 * max(times_s):.0f} us", f"below {1e6 * LATENCY_S:.0f} us"
    if max(times_s) > LATENCY_S:
        remedy = "look for other tools that ask the driver (DCGM, nvidia-smi loops); raise protocol.period_ms"
        yield Finding("NVML calls", NOTE, found, needed, remedy)
    else:
        yield Finding("NVML calls", OK, found, needed)


def shared_memory(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """The ranks of a node send data to each other through /dev/shm."""
    size = facts["shm_byte"]
    found = "not there" if size is None else f"{size / GIB:.1f} GiB free"
    needed = f"{SHM_BYTE / GIB:.0f} GiB for several ranks"
    if wish.devices > 1 and (size is None or size < SHM_BYTE):
        yield Finding(
            "/dev/shm", FAILED, found, needed, "in Docker: --shm-size=2g or --ipc=host; else mount it larger"
        )
    else:
        yield Finding("/dev/shm", OK, found, needed if wish.devices > 1 else "")


def scratch(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Samples are kept there until the run ends."""
    found = f"{facts['scratch']}: {facts['scratch_byte'] / GIB:.1f} GiB free"
    if facts["scratch_byte"] < SCRATCH_BYTE:
        remedy = "free some, or point SLURM_TMPDIR or TMPDIR at a larger folder of this node"
        yield Finding("scratch", FAILED, found, f"{SCRATCH_BYTE / GIB:.0f} GiB", remedy)
    else:
        yield Finding("scratch", OK, found, f"{SCRATCH_BYTE / GIB:.0f} GiB")


def peers(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Whether the names of the other nodes have an address, and which interface reaches it."""
    if wish.nodes == 1:
        yield Finding("peers", NONE, "one node")
        return
    if not facts["peers"]:
        yield Finding(
            "peers", NOTE, "not known", "names of the other nodes", "start under srun, or give --peers"
        )
    for name, interface in facts["peers"].items():
        if interface is None:
            remedy = "give the nodes names that they know (/etc/hosts, DNS)"
            yield Finding("peers", FAILED, f"{name} has no address here", "an address", remedy)
        elif interface == "lo":
            remedy = "its name means this node's loopback: correct /etc/hosts"
            yield Finding("peers", FAILED, f"{name} by lo", "a network interface", remedy)
        else:
            yield Finding("peers", OK, f"{name} by {interface}", "a network interface")


def clock(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """The wall clocks put the samples of several nodes on one time line."""
    synchronised = facts["clock_synchronised"]
    found = {True: "synchronised", False: "not synchronised", None: "not said"}[synchronised]
    if synchronised is False and wish.nodes > 1:
        yield Finding("clock", FAILED, found, "synchronised", "start chronyd or ntpd on the node")
    else:
        yield Finding("clock", OK if synchronised else NOTE, found, "synchronised between nodes")


def network(facts: Facts, wish: Wish) -> Iterator[Finding]:
    """Only data sets and checkpoints from a hub need it."""
    if not wish.hub:
        yield Finding("network", NONE, "not tried: this campaign takes nothing from a hub")
    elif facts["network"]:
        yield Finding("network", OK, "a hub is reached", "for glue/ data and hub checkpoints")
    else:
        remedy = "prepare the data sets where there is a network, or fill the cache of HF_HOME before"
        yield Finding("network", NOTE, "no hub is reached", "for glue/ data and hub checkpoints", remedy)


_GPU = (
    *(device, answers, torch_cuda, driver, kernels, persistence, compute_mode, mig),
    *(processes, counter, latency),
)
_NODE = (shared_memory, scratch, peers, clock, network)
