"""What the launcher says: how many processes there are, which one this is, and what it should see.

`LETTERPRESS_*` variables (set by `scripts/launch/`) come first; what they leave open is asked of
Open MPI, SLURM, Cloud TPU or Kubernetes. Nothing here touches a JAX backend.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import jax

KINDS = ("auto", "single", "slurm", "kubernetes", "tpu", "openmpi", "explicit")
COORDINATOR = "LETTERPRESS_COORDINATOR"
NUM_PROCESSES = "LETTERPRESS_NUM_PROCESSES"
PROCESS_ID = "LETTERPRESS_PROCESS_ID"
LOCAL_DEVICES = "LETTERPRESS_LOCAL_DEVICES"
COLLECTIVES = "LETTERPRESS_COLLECTIVES"
KNOWN_COLLECTIVES = ("gloo", "xla")
_DEV = Path("/dev")


class ClusterError(RuntimeError):
    """Processes that do not find each other, do not agree, or do not have what they should."""


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """How processes find each other; an empty string, 0 or -1 asks the environment.

    `coordinator` is the host:port of process 0. `local_devices` is what every process should have,
    and `device_ids` are those of the node's that this process takes (none: all it sees).
    `collectives` is how the CPU devices of a process that is alone add up: `gloo`, to the bits of
    several processes, or `xla`, faster and to others; of several processes it is always Gloo. ""
    is what the environment says, as `scripts/launch/local.py` does, else `xla`.
    """

    kind: str = "auto"
    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    local_devices: int = 0
    device_ids: tuple[int, ...] = ()
    start_timeout_s: float = 300.0
    heartbeat_timeout_s: int = 100
    shutdown_timeout_s: int = 60
    collectives: str = ""

    @classmethod
    def from_environment(cls, **given: object) -> ClusterConfig:
        """With every field filled in; what is given wins. Raises `ClusterError` for half an
        answer."""
        return resolved(cls(**given))  # type: ignore[arg-type]  # the dataclass names them


@dataclasses.dataclass(frozen=True)
class _Scheduler:
    """How one scheduler is recognised and asked; a question left empty is LETTERPRESS_*'s."""

    present: Callable[[], bool]
    coordinator: Callable[[float], str]
    num_processes: Callable[[], int]
    process_id: Callable[[], int]


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return otherwise
    if not text.strip().isdigit():
        raise ClusterError(f"{name} is {text!r}: set it to a whole number, or unset it")
    return int(text)


def _address() -> str:
    return os.environ.get(COORDINATOR) or os.environ.get("JAX_COORDINATOR_ADDRESS", "")


def _by_jax(cluster: type) -> _Scheduler:
    """JAX's own reading of a scheduler.

    It is private, and used because `jax.distributed.initialize`, which would do the same, ends the
    process when somebody is missing: we must know the address before (see
    train/distributed/rollcall.py).
    """

    def coordinator(timeout_s: float) -> str:
        port = os.environ.get("JAX_COORDINATOR_PORT")
        return cluster.get_coordinator_address(int(timeout_s), port)  # type: ignore[attr-defined]

    return _Scheduler(
        cluster.is_env_present,  # type: ignore[attr-defined]  # JAX's ClusterEnv
        coordinator,
        cluster.get_process_count,  # type: ignore[attr-defined]
        cluster.get_process_id,  # type: ignore[attr-defined]
    )


def _openmpi() -> _Scheduler:
    """Open MPI 5 no longer says where mpirun is; then the address must be given."""
    from jax._src.clusters import OmpiCluster

    def coordinator(timeout_s: float) -> str:
        return _by_jax(OmpiCluster).coordinator(timeout_s) if OmpiCluster.is_env_present() else ""

    return _Scheduler(
        lambda: "OMPI_COMM_WORLD_SIZE" in os.environ,
        coordinator,
        lambda: _number("OMPI_COMM_WORLD_SIZE", 0),
        lambda: _number("OMPI_COMM_WORLD_RANK", -1),
    )


def _slurm() -> _Scheduler:
    from jax._src.clusters import SlurmCluster

    def present() -> bool:
        if SlurmCluster.is_env_present():
            return True
        if "SLURM_JOB_ID" in os.environ and _number("SLURM_NTASKS", 1) > 1:
            raise ClusterError(
                f"this SLURM job has {os.environ['SLURM_NTASKS']} tasks and python was started "
                "without srun, as one: start it with srun, or with cluster kind single"
            )
        return False

    return dataclasses.replace(_by_jax(SlurmCluster), present=present)


def _tpu() -> _Scheduler:
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster

    if GkeTpuCluster.is_env_present():
        return _by_jax(GkeTpuCluster)
    return _by_jax(GceTpuCluster)


def _kubernetes() -> _Scheduler:
    """An indexed Job or a JobSet: the index is in the environment, the rest in the cluster's API,
    unless the manifest gives it."""
    from jax._src.clusters import K8sCluster

    indexed = "JOB_COMPLETION_INDEX" in os.environ
    told = bool(_address()) and NUM_PROCESSES in os.environ
    api = indexed and not told and K8sCluster.is_env_present()
    asked = _by_jax(K8sCluster)
    return _Scheduler(
        lambda: indexed and "KUBERNETES_SERVICE_HOST" in os.environ,
        asked.coordinator if api else lambda timeout_s: "",
        asked.num_processes if api else lambda: 0,
        lambda: _number("JOB_COMPLETION_INDEX", -1),
    )


_SCHEDULERS = {"openmpi": _openmpi, "slurm": _slurm, "tpu": _tpu, "kubernetes": _kubernetes}


def resolved(config: ClusterConfig) -> ClusterConfig:
    """The config with every field filled in, by LETTERPRESS_* and then by the scheduler.

    Raises `ClusterError` that names the variable when only half of the answer is there.
    """
    if config.kind not in KINDS:
        raise ClusterError(f"cluster kind {config.kind!r} is none of {', '.join(KINDS)}")
    config = dataclasses.replace(
        config,
        local_devices=config.local_devices or _number(LOCAL_DEVICES, 0),
        collectives=config.collectives or os.environ.get(COLLECTIVES) or "xla",
    )
    if config.collectives not in KNOWN_COLLECTIVES:
        known = " or ".join(KNOWN_COLLECTIVES)
        raise ClusterError(f"cluster collectives {config.collectives!r} are unknown: give {known}")
    if config.kind == "single":
        return dataclasses.replace(config, num_processes=1, process_id=0, coordinator="")
    config = dataclasses.replace(
        config,
        coordinator=config.coordinator or _address(),
        num_processes=config.num_processes or _number(NUM_PROCESSES, 0),
        process_id=config.process_id if config.process_id >= 0 else _number(PROCESS_ID, -1),
    )
    told = config.coordinator or config.num_processes or config.process_id >= 0
    if _missing(config):
        config = _ask_scheduler(config)
    if config.kind == "auto":
        config = dataclasses.replace(config, kind="explicit" if told else "single")
    if config.kind == "single" or config.num_processes == 1:
        config = dataclasses.replace(config, num_processes=1, process_id=0)
    elif _missing(config):
        raise ClusterError(
            f"the cluster is half described ({config.kind}): set {' and '.join(_missing(config))}"
            f"{_advice(config.kind)}"
        )
    if not 0 <= config.process_id < config.num_processes:
        raise ClusterError(
            f"there is no process {config.process_id} among {config.num_processes}: set "
            f"{PROCESS_ID} from 0 to {config.num_processes - 1}, or correct {NUM_PROCESSES}"
        )
    return dataclasses.replace(config, device_ids=config.device_ids or _share())


def _missing(config: ClusterConfig) -> list[str]:
    return [
        name
        for name, there in [
            (COORDINATOR, bool(config.coordinator) or config.num_processes == 1),
            (NUM_PROCESSES, config.num_processes > 0),
            (PROCESS_ID, config.process_id >= 0 or config.num_processes == 1),
        ]
        if not there
    ]


def _advice(kind: str) -> str:
    if kind == "kubernetes":
        return ", or install the kubernetes package and let the pod read its Job"
    return ""


def _ask_scheduler(config: ClusterConfig) -> ClusterConfig:
    """Fill in what is open by the named scheduler, or by the first that is there."""
    kinds = _SCHEDULERS if config.kind == "auto" else [config.kind]
    for kind in kinds:
        if kind not in _SCHEDULERS:
            break
        scheduler = _SCHEDULERS[kind]()
        if scheduler.present():
            many = config.num_processes or scheduler.num_processes()
            mine = config.process_id if config.process_id >= 0 else scheduler.process_id()
            where = config.coordinator
            if not where and many > 1:
                where = scheduler.coordinator(config.start_timeout_s)
            return dataclasses.replace(
                config, kind=kind, coordinator=where, num_processes=many, process_id=mine
            )
        if config.kind != "auto":
            raise ClusterError(
                f"cluster kind {kind}, and the environment shows none: start python under it, "
                f"or set {COORDINATOR}, {NUM_PROCESSES} and {PROCESS_ID}"
            )
    return config


def _node_tasks() -> tuple[int, int]:
    """Processes of this job on this node, and which of them this one is."""
    if "SLURM_LOCALID" in os.environ:
        listed = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get(
            "SLURM_TASKS_PER_NODE", "1"
        )
        counts: list[int] = []  # "4(x2),3" is 4, 4, 3
        for part in listed.split(","):
            match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
            if match is None:
                raise ClusterError(f"SLURM_TASKS_PER_NODE is {listed!r}, unlike 4(x2),3")
            counts += [int(match[1])] * int(match[2] or 1)
        node = min(_number("SLURM_NODEID", 0), len(counts) - 1)
        return counts[node], _number("SLURM_LOCALID", 0)
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        size = _number("OMPI_COMM_WORLD_LOCAL_SIZE", 1)
        return size, _number("OMPI_COMM_WORLD_LOCAL_RANK", 0)
    return 1, 0


def _gpus_seen() -> tuple[int, str]:
    """GPUs that CUDA would show this process, and what says so."""
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        ids = [text.strip() for text in listed.split(",")]
        hidden = next((i for i, text in enumerate(ids) if text in ("", "-1", "NoDevFiles")), None)
        return len(ids[:hidden]), f"CUDA_VISIBLE_DEVICES={listed}"
    # one such file a GPU; nvidiactl and nvidia-caps have no number
    found = [p for p in _DEV.glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
    return len(found), f"{_DEV}/nvidia* shows {len(found)}"


def _share() -> tuple[int, ...]:
    """This process's GPUs where several processes of a node see all of them; else none.

    JAX would take one GPU a process, numbered by the local rank: seven of eight idle when there is
    one process a node, a wrong number when the scheduler has bound one already.
    """
    tasks, mine = _node_tasks()
    seen, _ = _gpus_seen()
    if os.environ.get("JAX_LOCAL_DEVICE_IDS") or tasks == 1 or seen < tasks or seen % tasks:
        return ()
    on_node = _number("SLURM_GPUS_ON_NODE", seen)
    if on_node != seen:
        return ()
    each = seen // tasks
    return tuple(range(mine * each, (mine + 1) * each))


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a process should see: `count` devices (0: nothing says), GPUs rather than a CPU that JAX
    fell back to, and what says so."""

    count: int
    why: str
    gpus: bool = False


def expected_devices(config: ClusterConfig) -> Expected:
    """How many local devices JAX should have here."""
    platforms = str(jax.config.jax_platforms or "")  # type: ignore[attr-defined]  # made by JAX
    wants_cpu = platforms.split(",")[0] == "cpu"
    tpu = "tpu" in platforms  # its runtime refuses an incomplete host by itself
    gpus, why = (0, "") if wants_cpu or tpu else _expected_gpus(config)
    if config.local_devices:
        return Expected(config.local_devices, "its cluster config's local_devices", gpus > 0)
    if gpus or tpu:
        return Expected(gpus, why, gpus > 0)
    if count := _number("JAX_NUM_CPU_DEVICES", 0):
        return Expected(count, "JAX_NUM_CPU_DEVICES")
    forced = forced_devices()
    return Expected(forced, "XLA_FLAGS") if forced else Expected(0, "")


def forced_devices() -> int:
    """How many devices XLA_FLAGS makes of this machine's CPU; 0 if it says nothing."""
    flags = os.environ.get("XLA_FLAGS", "")
    found = re.findall(r"xla_force_host_platform_device_count=(\d+)", flags)
    return int(found[-1]) if found else 0


def _expected_gpus(config: ClusterConfig) -> tuple[int, str]:
    seen, why = _gpus_seen()
    if config.device_ids:
        return len(config.device_ids), f"its share of {seen} ({why})"
    if ids := os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return len(ids.split(",")), f"JAX_LOCAL_DEVICE_IDS={ids}"
    if on_node := _number("SLURM_GPUS_ON_NODE", 0):
        tasks, _ = _node_tasks()
        each = on_node // tasks if on_node >= tasks else on_node
        return each, f"SLURM_GPUS_ON_NODE={on_node} for {tasks} of its tasks"
    return seen, why
