"""What is checked in every process before anything is compiled.

A job that starts with seven of eight GPUs idle, with a folder that is not shared or with two
configs does not crash: it is slow or wrong for days. Here it stops in seconds, and says who.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform as python_platform
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from train.distributed.agreement import disagreements, named
from train.distributed.cluster import Cluster
from train.distributed.environment import LOCAL_DEVICES, ClusterError, Expected, expected_devices

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
# settings of JAX that change the numbers or the program
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
MAX_SKEW_S = 30.0
SEEN_WITHIN_S = 3.0  # what a network file system may take to show a new file


def check_cluster(
    cluster: Cluster, *, identity: Mapping[str, Any], workdir: Path, timeout_s: float = 120.0
) -> None:
    """Compare devices, versions, identity (plain JSON), clocks and `workdir` between all processes.

    Raises one `ClusterError` with all problems of all processes, in every process. `timeout_s` is
    for each of the few meetings.
    """
    workdir = Path(workdir)
    trouble = _trouble(workdir)
    if cluster.is_first:
        cluster.put("check/token", "" if trouble else _leave_token(workdir))
    # The first barrier brings all here; the second all pass within a network's delay, so the
    # moment when the last one came lies between the two times of every process's clock.
    cluster.barrier("workdir prepared", timeout_s)
    began = time.time()
    cluster.barrier("clocks", timeout_s)
    ended = time.time()
    token = cluster.get("check/token")
    expected = expected_devices(cluster.config)
    facts = {
        "devices": jax.local_device_count(),
        "platform": jax.default_backend(),
        "expected": dataclasses.asdict(expected),
        "jax_processes": [jax.process_index(), jax.process_count()],
        "versions": _versions(),
        "clock": [began, ended],
        "workdir": str(workdir),
        "trouble": trouble,
        "sees_token": not token or _sees(workdir / token),
        "identity": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    }
    gathered = cluster.gather("start of the run", facts, timeout_s)
    lines = problems(gathered, cluster.names)
    if len({fact["identity"] for fact in gathered}) > 1:
        whole = cluster.gather("configs", identity, timeout_s)
        lines += [f"config {line}" for line in disagreements(whole, cluster.names)]
    if cluster.is_first and token:
        (workdir / token).unlink(missing_ok=True)
    cluster.barrier("start checked", timeout_s)  # who leaves now takes nothing from the others
    if lines:
        raise ClusterError(f"the run does not start: {'; '.join(lines)}")


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": python_platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {**found, **{name: getattr(jax.config, name) for name in SETTINGS}}


def _trouble(workdir: Path) -> str:
    """Why this process cannot write there; empty if it can."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _write(workdir / f".probe-{uuid.uuid4().hex}", "x" * 4096).unlink()
        if shutil.disk_usage(workdir).free == 0:
            return "no space left"
    except OSError as problem:
        return problem.strerror or str(problem)
    return ""


def _leave_token(workdir: Path) -> str:
    name = f".token-{uuid.uuid4().hex}"
    _write(workdir / name, name)
    return name


def _write(path: Path, text: str) -> Path:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def _sees(token: Path) -> bool:
    deadline = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            if token.read_text() == token.name:
                return True
        except OSError:
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)


def problems(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """What is wrong with what the processes said of themselves, but for their configs."""
    lines = _device_problems(facts, names)
    lines += disagreements([fact["versions"] for fact in facts], names)
    return lines + _clock_problems(facts, names) + _workdir_problems(facts, names)


def _clock_problems(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Against process 0's: only what its delay in the network cannot explain."""
    skewed: dict[str, list[int]] = {}
    first_began, first_ended = facts[0]["clock"]
    for i, fact in enumerate(facts):
        began, ended = fact["clock"]
        ahead_s, behind_s = began - first_ended, first_began - ended
        if max(ahead_s, behind_s) > MAX_SKEW_S:
            how = f"{max(ahead_s, behind_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
            skewed.setdefault(how, []).append(i)
    return [
        f"the clock of {named(who, names)} is {how} of {names[0]}'s: synchronise them (NTP)"
        for how, who in skewed.items()
    ]


def _workdir_problems(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    lines = []
    for where, trouble in sorted({(f["workdir"], f["trouble"]) for f in facts if f["trouble"]}):
        who = [i for i, f in enumerate(facts) if (f["workdir"], f["trouble"]) == (where, trouble)]
        lines.append(f"{named(who, names)} cannot write to {where}: {trouble}")
    for where in sorted({f["workdir"] for f in facts if not f["sees_token"]}):
        who = [i for i, f in enumerate(facts) if f["workdir"] == where and not f["sees_token"]]
        lines.append(
            f"{named(who, names)} cannot see in {where} what {names[0]} wrote in "
            f"{facts[0]['workdir']}: give a --workdir on storage that all of them share"
        )
    return lines


def _device_problems(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    wrong: dict[str, list[int]] = {}
    for i, fact in enumerate(facts):
        expected = Expected(**fact["expected"])
        plural = "s" * (fact["devices"] != 1)
        sees = f"{fact['devices']} local {fact['platform']} device{plural}"
        fallen_back = expected.gpus and fact["platform"] == "cpu"
        if fallen_back or expected.count not in (0, fact["devices"]):
            should = f"{expected.count}{' gpu' if expected.gpus else ''} by {expected.why}"
            remedy = "install JAX for CUDA, or set JAX_PLATFORMS=cpu" if fallen_back else (
                f"let it see all, or set {LOCAL_DEVICES} to what is right"
            )  # fmt: skip
            line = f"{sees} where there should be {should}: {remedy}"
            wrong.setdefault(line, []).append(i)
        if fact["jax_processes"] != [i, len(facts)]:
            index, count = fact["jax_processes"]
            line = f"JAX's index {index} of {count} processes: start JAX by train.distributed only"
            wrong.setdefault(line, []).append(i)
    lines = [
        f"{named(who, names)} {'has' if len(who) == 1 else 'have'} {line}"
        for line, who in wrong.items()
    ]
    counts = [{"local devices": f["devices"], "platform": f["platform"]} for f in facts]
    return lines + disagreements(counts, names)
