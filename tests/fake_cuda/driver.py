"""The fake CUDA runtime, for tests: builds it against the CUDA build of torch, and reads what it logged.

    cuda = FakeCuda(folder, libraries, node, python)
    subprocess.run([cuda.python, ...], env=cuda.environment(FAKE_CUDA_LIMIT="1000000"))
    cuda.events("context")

README.md beside this file says what is faked, every knob, and what cannot be shown.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fake_nvml.driver import FakeNode
from paths import ROOT

HERE = Path(__file__).resolve().parent
SOURCES = ("device.c", "memory.c", "work.c", "nccl.c")
FLAGS = ("gcc", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
# What torch may ask of CUDA's libraries, by the names of their functions.
OF_CUDA = re.compile(r"_*(cu[a-zA-Z]|nccl|nvrtc|nvshmem|nvtx)")
WAITS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")


@dataclass(frozen=True)
class Event:
    """One line of the log: CLOCK_MONOTONIC in ns, process, what happened, to which device, launches so far."""

    time_ns: int
    pid: int
    name: str
    number: int
    launches: int


def build(folder: Path, torch_libraries: Path) -> Path:
    """Compile the fake into `folder` under the names of all CUDA libraries that this torch needs; returns `folder`.

    Functions that torch asks for and the sources do not have return success and do nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, versions, asked = _asked(torch_libraries)
    sources = [str(HERE / name) for name in SOURCES]
    objects = folder / "written.o"
    plain = [flag for flag in FLAGS if flag != "-shared"]
    for source in sources:
        subprocess.run([*plain, "-c", source, "-o", str(folder / f"{Path(source).stem}.o")], check=True)
    written = [str(folder / f"{Path(source).stem}.o") for source in sources]
    subprocess.run(["ld", "-r", "-o", str(objects), *written], check=True)
    had = {line.split()[-1] for line in _nm("--defined-only", objects)}
    zeros = folder / "zeros.c"
    zeros.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(asked - had)))
    script = folder / "versions.map"
    script.write_text("".join(f"{version} {{ }};\n" for version in sorted(versions)))
    library = folder / "libfakecuda.so"
    command = [*FLAGS, "-fno-builtin", str(objects), str(zeros), "-o", str(library), "-lpthread"]
    subprocess.run([*command, f"-Wl,--version-script={script}"], check=True)
    for name in names - {"libcuda.so.1"}:
        (folder / name).symlink_to(library.name)
    driver = [*FLAGS, str(HERE / "driver_api.c"), "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*driver, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def _nm(*arguments: str | Path) -> list[str]:
    command = ["nm", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def _asked(torch_libraries: Path) -> tuple[set[str], set[str], set[str]]:
    """(libraries, symbol versions, functions) of CUDA that torch's own libraries need and do not have."""
    files = sorted(torch_libraries.glob("*.so"))
    headers = subprocess.run(["readelf", "-dW", *files], check=True, capture_output=True, text=True).stdout
    own = {file.name for file in files}
    needed = set(re.findall(r"Shared library: \[(lib(?:cu|nccl|nv)[^\]]*)\]", headers)) - own
    asked = [line.split()[-1] for line in _nm("-D", "--undefined-only", *files) if line.startswith(" ")]
    had = {line.split()[-1] for line in _nm("-D", "--defined-only", *files) if " " in line}
    functions = [name for name in asked if OF_CUDA.match(name) and name not in had]
    versions = {name.partition("@")[2] for name in functions} - {""}
    return needed, versions, {name.partition("@")[0] for name in functions}


class FakeCuda:
    """The fake beside the fake NVML's `node`: `libraries` is what `build` returned, `python` has the CUDA torch."""

    def __init__(self, folder: Path, libraries: Path, node: FakeNode, python: Path):
        self.folder, self.libraries, self.node, self.python = folder, libraries, node, python
        self.log = folder / "cuda-log"
        self.log.mkdir(parents=True)

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment for a process that shall see these devices; None as a value takes a name away."""
        paths = f"{self.libraries}:{self.node.libraries}"
        own = {
            **{"LD_LIBRARY_PATH": paths, "LD_PRELOAD": str(self.libraries / "libfakecuda.so")},
            **{"FAKE_CUDA_DEVICES": str(self.node.state.n_gpus), "FAKE_CUDA_LOG": str(self.log)},
            "PYTHONPATH": os.pathsep.join([str(HERE / "site"), str(ROOT / "workflow")]),
            # Each tensor gets fresh zeros: what a kernel should have written is at least a number.
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
            # cuDNN's attention asks the library for a plan, which the fake has not.
            "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
            **extra,
        }
        return self.node.environment(**own)

    def exclusive(self) -> dict[str, str]:
        """What makes the devices EXCLUSIVE_PROCESS."""
        claims = self.folder / "claims"
        claims.mkdir(exist_ok=True)
        return {"FAKE_CUDA_EXCLUSIVE": str(claims)}

    def events(self, *names: str) -> list[Event]:
        """What was logged under these names (all: none given), in the order of time."""
        found = []
        for path in self.log.glob("*.log"):
            for line in path.read_text().splitlines():
                time_ns, name, number, launches = line.split("\t")
                if not names or name in names:
                    found.append(Event(int(time_ns), int(path.stem), name, int(number), int(launches)))
        return sorted(found, key=lambda event: event.time_ns)
