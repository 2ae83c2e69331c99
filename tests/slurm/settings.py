"""The configuration files of the test cluster, as texts."""

from dataclasses import dataclass
from pathlib import Path

# Away from Slurm's and MySQL's defaults (6817 to 6819, 3306); the cluster has a network namespace of its own.
SLURMCTLD_PORT, SLURMDBD_PORT, MYSQL_PORT, SLURMD_PORT = 17817, 17819, 17806, 17820


@dataclass(frozen=True)
class Settings:
    """What a cluster is asked to be. Declared CPUs and memory may exceed the machine's."""

    nodes: int = 4
    gpus_per_node: int = 4
    cpus_per_node: int = 16
    memory_mb: int = 64000
    accounting: bool = True
    node_power_w: float = 400.0
    extra: str = ""

    @property
    def node_names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]


def hosts(settings: Settings) -> str:
    lines = ["127.0.0.1 localhost ctl"]
    lines += [f"127.0.0.{10 + i} {name}" for i, name in enumerate(settings.node_names, 1)]
    return "\n".join(lines) + "\n"


def slurm_conf(settings: Settings, state: Path, plugins: Path) -> str:
    run, log = state / "run", state / "log"
    lines = f"""
ClusterName=testbed
SlurmctldHost=ctl(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket,cred_expire=10
CredType=cred/munge
PluginDir={plugins}
SlurmctldPort={SLURMCTLD_PORT}
SlurmctldPidFile={run}/slurmctld.own.pid
SlurmdPidFile={run}/slurmd.%n.own.pid
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool/%n
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/slurmd.%n.log
# no cgroups and no binding, so that any virtual machine will do; memory limits by polling instead
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1,energy=1
JobAcctGatherParams=UsePss,OverMemoryKill
AcctGatherEnergyType=acct_gather_energy/pm_counters
AcctGatherNodeFreq=1
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
MailProg=/bin/true
ReturnToService=2
# quick reactions
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=5,sched_min_interval=0
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
KillWait=5
UnkillableStepTimeout=20
InactiveLimit=0
MinJobAge=600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10 State=UP
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL State=UP
""".strip().splitlines()
    if settings.accounting:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={SLURMDBD_PORT}",
            f"AccountingStoragePass={run}/munge.socket",
            "AccountingStoreFlags=job_comment",
        ]
    else:
        lines += ["AccountingStorageType=accounting_storage/none"]
    gres = f"Gres=gpu:{settings.gpus_per_node}" if settings.gpus_per_node else ""
    if gres:
        lines += ["GresTypes=gpu"]
        if settings.accounting:
            lines += ["AccountingStorageTRES=gres/gpu"]
    cpus = settings.cpus_per_node
    for i, name in enumerate(settings.node_names, 1):
        where = f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.{10 + i} Port={SLURMD_PORT + i}"
        what = f"CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1"
        lines += [f"{where} {what} RealMemory={settings.memory_mb} {gres} State=UNKNOWN"]
    return "\n".join(lines) + "\n" + settings.extra


def gres_conf(settings: Settings, state: Path) -> str:
    """GPU files must lead to device nodes: links to /dev/null do."""
    if not settings.gpus_per_node:
        return ""
    files = f"{state}/dev/nvidia[0-{settings.gpus_per_node - 1}]"
    return f"NodeName={','.join(settings.node_names)} Name=gpu File={files}\n"


def slurmdbd_conf(state: Path, plugins: Path, password: str) -> str:
    run = state / "run"
    return f"""
AuthType=auth/munge
AuthInfo=socket={run}/munge.socket
PluginDir={plugins}
DbdHost=ctl
DbdAddr=127.0.0.1
DbdPort={SLURMDBD_PORT}
SlurmUser=root
LogFile={state}/log/slurmdbd.log
PidFile={run}/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={MYSQL_PORT}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
""".lstrip()
