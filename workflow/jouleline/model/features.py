"""The arrays that every model reads: the proxies of a row, its strategy and its device. The targets are kept apart."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from jouleline.architecture import proxies
from jouleline.model.table.runs import Columns, take

AXES = ("layers", "hidden", "intermediate", "seq_len", "micro_batch")
"""The axes along which a prediction can leave the sampled range. The device count and the compute come in addition."""

CATEGORIES = ("device", "precision", "task", "attention", "model_type", "strategy", "variant")


@dataclass(frozen=True)
class Data:
    """A runs table as arrays with one entry per row. Quantities are per step, unless the text says otherwise.

    Everything except `step_time_s` and `step_energy_j` is known before the run.
    """

    columns: Columns
    proxies: dict[str, np.ndarray]
    memo: dict = field(default_factory=dict, repr=False, compare=False)
    """What models derive from the features of these rows. It is used again for the next fold."""

    @classmethod
    def of(cls, columns: Columns) -> "Data":
        return cls(columns, proxies(columns))

    def __len__(self) -> int:
        return len(self.columns["device"])

    def take(self, rows: np.ndarray) -> "Data":
        """The given rows (mask or indices)."""
        return Data(take(self.columns, rows), {name: values[rows] for name, values in self.proxies.items()})

    def labels(self, name: str) -> tuple[list, np.ndarray]:
        """The distinct values of a column (or of `strategy`, `variant`), and the index of each row's value, int
        [rows]."""
        key = ("labels", name)
        if key not in self.memo:
            values = getattr(self, name) if name in {"strategy", "variant"} else self.columns[name]
            values = values.tolist()
            codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
            self.memo[key] = (list(codes), np.array(list(map(codes.__getitem__, values))))
        return self.memo[key]

    @cached_property
    def devices(self) -> np.ndarray:
        """Device count N."""
        return self.columns["device_count"].astype(float)

    @cached_property
    def steps(self) -> np.ndarray:
        return self.columns["steps"].astype(float)

    @cached_property
    def flop(self) -> np.ndarray:
        """Compute C, FLOP per device."""
        return self.proxies["compute_flop"]

    @cached_property
    def byte(self) -> np.ndarray:
        """Memory traffic M, byte per device."""
        return self.proxies["memory_byte"]

    @cached_property
    def launch_flop(self) -> np.ndarray:
        """FLOP per matrix-multiply launch. It decides how full the device is."""
        return self.flop / np.maximum(self.proxies["matmul_launches"], 1)

    @cached_property
    def tokens(self) -> np.ndarray:
        """Padded tokens computed, all devices."""
        return self.columns["tokens"] / self.steps

    @cached_property
    def strategy(self) -> np.ndarray:
        """single, dp (ZeRO 0-2), fsdp (ZeRO-3), tp, or tp+dp / tp+fsdp. Object [rows]."""
        tensor = self.columns["tensor_parallel"] > 1
        replicas = self.columns["data_parallel"] > 1
        sharded = self.columns["zero_stage"] == 3
        names = np.array(["single", "dp", "fsdp", "tp", "tp+dp", "tp+fsdp"], dtype=object)
        return names[3 * tensor + np.where(replicas, 1 + sharded, 0)]

    @cached_property
    def variant(self) -> np.ndarray:
        """full, lora, frozen or lora+frozen, with +ckpt for activation checkpointing. Object [rows]."""
        base = ("full", "frozen", "lora", "lora+frozen")
        names = np.array([*base, *(f"{one}+ckpt" for one in base)], dtype=object)
        lora, frozen = self.columns["lora_rank"] > 0, self.columns["frozen_layers"] > 0
        return names[2 * lora + frozen + 4 * (self.columns["gradient_checkpointing"] > 0)]

    @cached_property
    def between_nodes(self) -> np.ndarray:
        """Whether devices of more than one node communicate with each other. Bool [rows]."""
        return self.columns["nodes"] > 1

    @cached_property
    def step_time_s(self) -> np.ndarray:
        """Target: measured time of one step."""
        return self.columns["time_s"] / self.steps

    @cached_property
    def step_energy_j(self) -> np.ndarray:
        """Target: measured energy of one step, all devices."""
        return self.columns["energy_j"] / self.steps

    @cached_property
    def families(self) -> np.ndarray:
        """Code of each row's family, int [rows]."""
        return np.unique(self.columns["family"].astype(str), return_inverse=True)[1]


def domain(data: Data, rows: np.ndarray | slice = slice(None)) -> dict:
    """The range of every axis, the device counts and the categories of some rows. This describes what a model was
    fitted on."""
    axes = {axis: data.columns[axis][rows] for axis in AXES}
    axes |= {"device_count": data.devices[rows], "compute_flop": data.flop[rows]}
    categories = {}
    for name in CATEGORIES:
        values, index = data.labels(name)
        categories[name] = sorted(values[code] for code in np.unique(index[rows]))
    ranges = {axis: [float(values.min()), float(values.max())] for axis, values in axes.items()}
    counts = sorted(set(axes["device_count"].tolist()))
    return {"ranges": ranges, "categories": categories, "counts": counts}


def _checks(data: Data, known: dict) -> list[tuple[str, np.ndarray]]:
    columns = data.columns | {"compute_flop": data.flop}
    checks = [
        (axis, (columns[axis] < low * (1 - 1e-9)) | (columns[axis] > high * (1 + 1e-9)))
        for axis, (low, high) in known["ranges"].items()
    ]
    # A device count between two measured ones is as unseen as one beyond them, because rings and nodes can start in
    # between.
    if "counts" in known:
        unseen = ~np.isin(columns["device_count"].astype(float), known["counts"])
        checks = [(axis, unseen if axis == "device_count" else mask) for axis, mask in checks]
    for name, allowed in known["categories"].items():
        values, index = data.labels(name)
        checks.append((name, np.array([value not in allowed for value in values])[index]))
    return checks


def beyond(data: Data, known: dict) -> np.ndarray:
    """Whether each row lies outside `known` (see `domain`) on any axis. Bool [R]."""
    return np.logical_or.reduce([mask for _, mask in _checks(data, known)])


def extrapolation(data: Data, known: dict) -> list[str]:
    """For each row, the axes along which it lies outside `known`, separated by commas. "" means inside."""
    checks = _checks(data, known)
    code = sum(
        (mask.astype(int) << place for place, (_, mask) in enumerate(checks)), np.zeros(len(data), int)
    )
    patterns, index = np.unique(code, return_inverse=True)
    texts = [
        ",".join(name for place, (name, _) in enumerate(checks) if pattern >> place & 1)
        for pattern in patterns
    ]
    return [texts[row] for row in index]
