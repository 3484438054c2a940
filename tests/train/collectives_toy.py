"""A process that is alone: `python collectives_toy.py gloo|xla|broken|stopped EXIT_CODE`. It prints
what it finds, then ends with the code."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from train import mesh as meshes
from train.distributed import ClusterConfig, collectives, start

how, code = sys.argv[1:]


def no_gloo(client, hostname):
    raise RuntimeError("no loopback here")


if how == "broken":
    collectives._jax.make_gloo_tcp_collectives = no_gloo
cluster = start(ClusterConfig(kind="single", collectives="xla" if how == "xla" else "gloo"))
mesh = meshes.build({"data": -1})
summed = jax.jit(
    jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P())
)
values = np.random.default_rng(0).normal(size=(jax.device_count(), 1000)).astype(np.float32)
print()
found = np.asarray(summed(values))[0]
print()  # Gloo's own lines are not always whole
told = [cluster.num_processes, jax.process_count(), jax.distributed.is_initialized()]
print("found", json.dumps({"told": told, "sum": found.tolist(), "values": values.tolist()}))
if how == "stopped":
    # no thread of ours could wake us: a shell has to
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)
    assert np.array_equal(np.asarray(summed(values))[0], found)
sys.exit(int(code))
