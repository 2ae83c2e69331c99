"""How one node's part of a job ended, from the exit codes and the result files of its ranks."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jouleline.files import read_json
from jouleline.measure.node.failures import PEER_LOST, oom_kills
from jouleline.measure.node.files import result_file
from jouleline.measure.node.ranks import Ranks


@dataclass(frozen=True)
class Outcome:
    """status ok, oom or failed. `reason` is a code, `detail` a sentence. `ranks` is what this node's ranks said."""

    status: str
    reason: str | None = None
    detail: str | None = None
    ranks: list[dict[str, Any]] = field(default_factory=list)

    def worse(self, status: str, reason: str | None, detail: str | None) -> "Outcome":
        """This outcome, or the given one where that is worse (failed > oom > lost peer > ok)."""
        if _gravity(status, reason) <= _gravity(self.status, self.reason):
            return self
        return replace(self, status=status, reason=reason, detail=detail)

    def shared_with(self, users: list[str]) -> "Outcome":
        """This outcome; a failure where memory ran out and `users` held some of it."""
        if self.status != "oom" or not users:
            return self
        detail = f"{self.detail}; meanwhile the GPUs were used by {', '.join(users)}: measure again without"
        return replace(self, status="failed", reason="gpu_shared", detail=detail)

    @property
    def found(self) -> dict[str, Any]:
        """What the first rank learnt of its device."""
        return self.ranks[0] if self.ranks else {}


def _gravity(status: str, reason: str | None) -> int:
    """A lost peer is a consequence: memory ran out elsewhere, or another rank failed."""
    return 1 if reason == PEER_LOST else {"ok": 0, "oom": 2, "failed": 3}[status]


def of_ranks(here: Ranks, first: int, kills_before: int) -> Outcome:
    """The outcome of this node's ranks. The first of them has the number `first` in the job.

    `kills_before` is the kernel's count of memory kills before they began.
    """
    codes, folder = here.exit_codes, here.folder
    said = {
        local: read_json(result_file(folder, local)) for local in codes if result_file(folder, local).exists()
    }
    ranks = [said.get(local, {}) for local in sorted(codes)]
    if not any(codes.values()):
        return Outcome("ok", ranks=ranks)
    causes = [
        _cause(first + local, code, said.get(local, {}).get("failure"), kills_before)
        for local, code in codes.items()
        if code and local in here.died
    ]
    # One rank out of memory makes the others fail in their next collective, and any of them may report first.
    _, status, reason, detail = min(
        causes, key=lambda cause: (cause[1] != "oom", cause[2] == PEER_LOST, cause[0])
    )
    return Outcome(status, reason, detail, ranks)


def _cause(
    rank: int, code: int, failure: Mapping[str, Any] | None, kills_before: int
) -> tuple[float, str, str, str]:
    """(time, status, reason, detail) of a rank that ended with `code`. A rank that could not say when comes first."""
    if failure:
        detail = f"rank {rank} exited with {code}: {failure['detail']}"
        return failure["time_s"], failure["status"], failure["reason"], detail
    if code == -signal.SIGKILL and oom_kills() > kills_before:
        return 0.0, "oom", "out_of_memory", f"rank {rank} was killed by the kernel for memory"
    if code < 0:
        return 0.0, "failed", "rank_killed", f"rank {rank} was killed by signal {-code}"
    return 0.0, "failed", "rank_failed", f"rank {rank} exited with {code} and said nothing"
