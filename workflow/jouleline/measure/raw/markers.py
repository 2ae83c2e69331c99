"""Marks in a trainer: where regions begin and end, where steps are, which device the rank runs on.

    from jouleline.measure import region, step

    with region("epoch"):
        for batch in loader:
            train(batch)
            step()

The environment variable JOULELINE_MARKERS names the folder; without it every call does nothing. There is one append-
only file per rank. A mark is one write(2) of 64 bytes. It is in the kernel when the call returns, so killing the
process loses no mark. A mark that cannot be written (full disk, a step's number that is no number) is dropped with one
warning: the trainer is never harmed, and reading finds the hole. Standard library only. torch is used only if it is
already imported.
"""

import contextlib
import itertools
import os
import struct
import sys
import time
import zlib

ENVIRONMENT = "JOULELINE_MARKERS"
MAGIC = 0x4A4C
VERSION = 1
START, END, STEP, DEVICE = 1, 2, 3, 4
NAME_BYTES = 32
# Rank of marks that hold for the whole node: those of the command that `jouleline measure` wraps.
NODE_RANK = -1
# The variables in which launchers say which rank a process is: torchrun, deepspeed, accelerate and Kubeflow; Open MPI,
# PMIx, MPICH and Intel MPI (Hydra), MVAPICH old and new, HPE MPT, Platform MPI, IBM's POE; Cray's PALS and ALPS, LSF's
# jsrun and blaunch, Flux, Horovod. Slurm's and PBS' come last: they are 0 for every rank that mpirun starts in a job.
RANK_VARIABLES = (
    *("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PMI_ID", "MV2_COMM_WORLD_RANK"),
    *("MVP_COMM_WORLD_RANK", "MPIRUN_RANK", "MPT_MPI_RANK", "MPI_RANKID", "MP_CHILD", "PALS_RANKID"),
    *("ALPS_APP_PE", "JSM_NAMESPACE_RANK", "LSF_PM_TASKID", "FLUX_TASK_RANK", "HOROVOD_RANK"),
    *("SLURM_PROCID", "PBS_VNODENUM"),
)

# magic, version, kind, seq, t_ns, id, parent, rank, name; then the CRC-32 of these 60 bytes.
BODY = struct.Struct("<HBBIqIIi32s")
CHECK = struct.Struct("<I")
RECORD_BYTES = BODY.size + CHECK.size


class MarkerFile:
    """The file of one rank. `path` is `rank-<r>.bin`. The pid is added when another process has this name."""

    def __init__(self, folder: str, rank: int):
        os.makedirs(folder, exist_ok=True)
        self.rank = rank
        self.lost = 0
        self.numbers = itertools.count()
        self.ids = itertools.count(1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL | os.O_CLOEXEC
        try:
            self.path = os.path.join(folder, f"rank-{rank}.bin")
            self.handle = os.open(self.path, flags, 0o644)
        except FileExistsError:
            self.path = os.path.join(folder, f"rank-{rank}.{os.getpid()}.bin")
            self.handle = os.open(self.path, flags & ~os.O_EXCL, 0o644)

    def write(self, kind: int, t_ns: int, identity: int, parent: int, name: bytes = b"") -> None:
        """Append one record. Never raises."""
        number = next(self.numbers) & 0xFFFFFFFF
        try:
            body = BODY.pack(MAGIC, VERSION, kind, number, t_ns, identity, parent, self.rank, name)
            if os.write(self.handle, body + CHECK.pack(zlib.crc32(body))) != RECORD_BYTES:
                self._lose("the disk is full")
        except (OSError, struct.error) as error:
            self._lose(error)

    def _lose(self, why: object) -> None:
        """Leave a hole of zeros for the reader to count. It takes no room on the disk.

        A gap in the numbering alone is not seen at the end of the file. The hole also ends a torn record, so that the
        records after it are in their places.
        """
        if not self.lost:
            print(f"jouleline: a mark is lost in {self.path}: {why}", file=sys.stderr)
        self.lost += 1
        with contextlib.suppress(OSError):
            os.ftruncate(self.handle, (os.fstat(self.handle).st_size // RECORD_BYTES + 1) * RECORD_BYTES)


def launched_as() -> int:
    """The rank that a launcher gave this process; 0 without one. A variable of such a name without a rank is not a
    launcher's."""
    values = (os.environ.get(name, "") for name in RANK_VARIABLES)
    return next((int(value) for value in values if value.isdecimal() and len(value) < 10), 0)


class _State:
    """What this process has open. It is made again after a fork: a child is not the rank that its parent is."""

    def __init__(self):
        self.file = None
        self.closed = False
        self.open_regions = []
        self.steps = itertools.count()
        self.pending = []

    def marker_file(self) -> MarkerFile | None:
        if self.file is None and not self.closed:
            folder = os.environ.get(ENVIRONMENT)
            try:
                self.file = MarkerFile(folder, launched_as()) if folder else None
            except OSError as error:
                print(f"jouleline: no markers in {folder}: {error}", file=sys.stderr)
            self.closed = self.file is None
        return self.file


_state = _State()


def _forget() -> None:
    global _state
    _state = _State()


os.register_at_fork(after_in_child=_forget)


def _cuda():
    """torch.cuda where the program already uses a GPU, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def encode_name(name: str) -> bytes:
    """A region name as the record holds it; raises ValueError above 32 bytes of UTF-8."""
    encoded = name.encode("utf-8")
    if not encoded or len(encoded) > NAME_BYTES:
        raise ValueError(f"region name {name!r} must have 1 to {NAME_BYTES} bytes; shorten it")
    return encoded


class region:
    """Context manager that marks a region. Regions nest. Both edges come after a device synchronize.

    `synchronize=False` lets the device run on. The edge then says when the host got there.

    Start, step and end are three records of 64 bytes:

    >>> import tempfile
    >>> os.environ[ENVIRONMENT] = tempfile.mkdtemp()
    >>> with region("epoch"):
    ...     step()
    >>> os.path.getsize(_state.file.path)
    192
    """

    def __init__(self, name: str, synchronize: bool = True):
        self.name = encode_name(name)
        self.synchronize = synchronize

    def __enter__(self):
        state = self.state = _state
        file = self.file = state.marker_file()
        if file is None:
            return self
        self.identity = next(file.ids)
        self.parent = state.open_regions[-1].identity if state.open_regions else 0
        self.origin = None
        cuda = _cuda()
        if cuda is not None and self.synchronize:
            cuda.synchronize()
            self.origin = cuda.Event(enable_timing=True)
            self.origin.record()
        self.start_ns = time.monotonic_ns()
        file.write(START, self.start_ns, self.identity, self.parent, self.name)
        state.open_regions.append(self)
        return self

    def __exit__(self, exception, *_):
        if self.file is None or self.state is not _state:
            return False
        cuda = _cuda()
        # After an exception, waiting for the device could hang, or hide the cause behind an error of its own.
        if cuda is not None and self.synchronize and exception is None:
            cuda.synchronize()
        end_ns = time.monotonic_ns()
        if self.state.pending:
            self._write_steps(known=exception is None)
        self.file.write(END, end_ns, self.identity, self.parent, self.name)
        if self in self.state.open_regions:
            self.state.open_regions.remove(self)
        return False

    def _write_steps(self, known):
        """Place the steps of this region on the host's clock: start of the region plus the GPU's own time. Without a
        wait for the device this time is not `known`, and the steps are dropped."""
        mine = [entry for entry in self.state.pending if entry[1] is self]
        self.state.pending = [entry for entry in self.state.pending if entry[1] is not self]
        for number, _, event in mine if known else ():
            t_ns = self.start_ns + int(self.origin.elapsed_time(event) * 1e6)
            self.file.write(STEP, t_ns, number, self.identity)


def step(number: int | None = None) -> None:
    """Mark the end of a training step (numbered from 0 when no number is given). On a GPU a CUDA event on the current
    stream times it without a stall. It is written when the region around it ends."""
    state = _state
    file = state.marker_file()
    if file is None:
        return
    number = next(state.steps) if number is None else number
    around = state.open_regions[-1] if state.open_regions else None
    cuda = _cuda()
    if cuda is not None and around is not None and around.origin is not None:
        event = cuda.Event(enable_timing=True)
        event.record()
        state.pending.append((number, around, event))
        return
    file.write(STEP, time.monotonic_ns(), number, around.identity if around else 0)


def report_device(uuid: str) -> None:
    """Say on which device this rank runs (`GPU-...`, `MIG-...`), so that the sidecar can be checked."""
    file = _state.marker_file()
    if file is None:
        return
    kind, _, digits = uuid.partition("-")
    packed = digits.replace("-", "").encode()[:NAME_BYTES]
    file.write(DEVICE, time.monotonic_ns(), os.getpid(), 1 if kind == "MIG" else 0, packed)


def device_uuid(parent: int, name: str) -> str:
    """The UUID that `report_device` packed: `parent` gives the prefix, `name` 32 hexadecimal digits."""
    prefix = "MIG" if parent == 1 else "GPU"
    groups = (name[:8], name[8:12], name[12:16], name[16:20], name[20:])
    return "-".join((prefix, *groups))
