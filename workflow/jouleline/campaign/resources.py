"""What a job asks Slurm for. These numbers are resources, never parameters: another number measures nothing again."""


def cpus_per_task(devices: int, protocol: dict) -> int:
    """CPUs of one node's agent: the threads of its ranks on a CPU, four per device on a GPU."""
    return devices * (4 if protocol["device"] == "cuda" else protocol["threads_per_device"])


def gres(devices: int, kind: str | None, protocol: dict) -> str | None:
    """Slurm's gres of a node, such as gpu:4. `kind` is the site's. None where the job needs no such device."""
    kind = kind or ("gpu" if protocol["device"] == "cuda" else None)
    return f"{kind}:{devices}" if kind else None


def memory_mb(row: dict, protocol: dict) -> int:
    """Host memory of a node: libraries, weights with optimizer state, and on a CPU the activations too."""
    L, d, ff, S = row["layers"], row["hidden"], row["intermediate"], row["seq_len"]
    parameters = L * (4 * d * d + 2 * d * ff) + row["vocab_size"] * d
    activations = row["micro_batch"] * S * L * (24 * d + 4 * ff + 8 * row["heads"] * S)
    held = 24 * parameters + (0 if protocol["device"] == "cuda" else 12 * activations)
    return 2000 + row["gpus_per_node"] * (2500 + held // 1_000_000)


def calibration_mb(devices: int) -> int:
    """Host memory of a calibration: a process per device with torch, a CUDA context and NCCL's buffers."""
    return max(8000, 2000 + 2500 * devices)


def runtime_min(protocol: dict) -> int:
    """Time limit of a measured run: the start, idle time before and after, cooling down, and four windows."""
    seconds = protocol["startup_timeout_s"] + 2 * protocol["idle_s"] + protocol["cooldown_max_s"]
    return int((seconds + 4 * protocol["window_max_s"]) // 60) + 2
