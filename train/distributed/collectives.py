"""One process whose CPU devices add up as those of several processes do.

XLA sums what the devices of a process hold in the order of their ranks; between processes Gloo sums
along a ring. The last bit differs, and a quantiser with a critic makes percents of it within fifty
steps. With Gloo inside the process too, a run's bits depend on its mesh, and not on how many
processes the devices are in.
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
import tempfile
from typing import Any

import jax
from jax._src import xla_bridge  # JAX has no public way to give the CPU's client its collectives
from jax._src.lib import _jax  # type: ignore[reportPrivateImportUsage]  # nor its client
from jax.extend.backend import register_backend_factory

from train.distributed.environment import forced_devices

_CONNECT_S = 20
# Nothing here can be lost, and a process that was stopped (Ctrl-Z) for longer than the heartbeats
# may be late would find itself dead: about three years.
_HEARTBEAT_S = 100_000_000

_given = False


def use_gloo() -> None:
    """Let the CPU's devices of this process, if it will have several, add up through Gloo.

    Other backends stay as they are, and JAX is told nothing of a cluster. Call it before anything
    asks JAX for devices; where that is too late, or Gloo cannot be had, this is said on stderr and
    XLA's own collectives are used.
    """
    global _given
    if _given:
        return
    if xla_bridge.backends_are_initialized():
        if jax.local_device_count("cpu") > 1:
            _say("JAX was asked for devices before start(): call start() first")
        return
    register_backend_factory("cpu", _make_client, priority=0, fail_quietly=False)
    _given = True


def _make_client() -> Any:
    number = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]  # made by JAX
    if (number if number >= 0 else forced_devices()) <= 1:
        return xla_bridge.make_cpu_client()
    try:
        collectives = _gloo()
    except (RuntimeError, OSError) as problem:
        _say(f"Gloo cannot be had ({problem}): give this machine a loopback network (127.0.0.1)")
        return xla_bridge.make_cpu_client()
    return xla_bridge.make_cpu_client(collectives)


def _say(why: str) -> None:
    print(
        f"the CPU's devices add up in XLA's order, unlike those of several processes: {why}, or "
        "set config.cluster.collectives=xla",
        file=sys.stderr,
    )


def _gloo() -> Any:
    """Gloo over the loopback, with a table where its ranks leave their addresses.

    The table is a coordination service behind a Unix socket, so that no port is taken for it. It
    has to stay: devices that have not yet met may do so at any later program.
    """
    address = _address()
    table = _jax.get_distributed_runtime_service(address, 1, heartbeat_timeout=_HEARTBEAT_S)
    client = _jax.get_distributed_runtime_client(
        address, 0, init_timeout=_CONNECT_S, heartbeat_timeout=_HEARTBEAT_S
    )
    client.connect()

    def close() -> None:
        client.shutdown()  # a client that outlives its service aborts the process
        table.shutdown()

    atexit.register(close)
    return _jax.make_gloo_tcp_collectives(client, hostname="127.0.0.1")


def _address() -> str:
    """A name that nobody else has; Linux's need no file."""
    if sys.platform == "linux":
        return f"unix-abstract:letterpress-{os.getpid()}-{secrets.token_hex(8)}"
    folder = tempfile.TemporaryDirectory(prefix="letterpress-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return f"unix:{folder.name}/gloo"
