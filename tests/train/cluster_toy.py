"""One process of a cluster that talks and writes down what it heard: `python cluster_toy.py
conversation|start FOLDER`. The LETTERPRESS_* variables say which process it is."""

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from train.distributed import ClusterError, start
from train.distributed import check as cluster_check
from train.exits import DONE, FAILED


def heard(call, *args, **kwargs):
    """The error's text and how long it took."""
    began = time.monotonic()
    try:
        call(*args, **kwargs)
    except ClusterError as problem:
        return {"error": str(problem), "took_s": time.monotonic() - began}
    return {"error": "", "took_s": time.monotonic() - began}


def check(cluster, workdir, *, seed=0):
    identity = {"task": "toy", "data": {"seed": seed, "fonts": ["roboto", "manrope"]}}
    return heard(
        cluster_check.check_cluster, cluster, identity=identity, workdir=workdir, timeout_s=20
    )


def conversation(folder):
    """All that can be said in one pair of processes."""
    cluster = start()
    mine, said = cluster.process_index, {"names": cluster.names, "name": cluster.name}
    for _ in range(3):
        cluster.barrier("again", 20)
    said["gathered"] = [cluster.gather("ints", {"i": mine, "round": r}, 20) for r in range(2)]
    same = {"loop": {"seed": 1, "rules": ["data"]}}
    said["same"] = heard(cluster.agree, "config", same, 20)
    other = {"loop": {"seed": 1 + mine, "rules": ["data"]}}
    said["other"] = heard(cluster.agree, "config", other, 20)
    if mine == 1:
        cluster.put("colour", "red")
    cluster.barrier("colour", 20)
    said["colour"], said["nothing"] = cluster.get("colour"), cluster.get("nothing")

    if mine == 1:  # process 0 waits in vain, and hears its alarm meanwhile
        time.sleep(2.2)
    ticks = []
    signal.signal(signal.SIGALRM, lambda *_: ticks.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    began = time.monotonic()
    said["late"] = heard(cluster.barrier, "meal", 0.5)
    said["alarm_s"] = ticks[0] - began if ticks else None
    said["after"] = [heard(cluster.barrier, "meal", 20) for _ in range(2)]

    said["calm"] = check(cluster, folder / "shared")
    said["left_behind"] = sorted(p.name for p in (folder / "shared").iterdir())
    cluster.barrier("listed", 20)
    cluster_check.SEEN_WITHIN_S = 0.3
    said["unshared"] = check(cluster, folder / f"own{mine}")
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    local = np.arange(2.0) + 2 * mine
    said["sum"] = float(jnp.sum(jax.make_array_from_process_local_data(sharding, local)))
    cluster.config = dataclasses.replace(cluster.config, local_devices=8)
    said["short"] = check(cluster, folder / "shared")
    return cluster, said, DONE


def broken_start(folder):
    """Process 1 has another config, another workdir and too few devices."""
    cluster = start()
    own = cluster.process_index
    said = check(cluster, folder / f"own{own}", seed=own)
    if own == 1:
        time.sleep(0.5)  # process 0, whose end ends the service, leaves last all the same
    return cluster, said, FAILED if said["error"] else DONE


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    cluster, said, code = {"conversation": conversation, "start": broken_start}[sys.argv[1]](folder)
    (folder / f"said{cluster.process_index}.json").write_text(json.dumps(said))
    cluster.leave(code)
