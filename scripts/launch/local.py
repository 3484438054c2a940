"""Train with several real processes on this machine, each with emulated devices on the CPU:

    python scripts/launch/local.py --processes 2 --devices-per-process 2 \\
        -- python scripts/train.py --config configs/planner/tiny.py --workdir W

Lines come with the process's number; the first that fails ends the others and gives the exit code.
With `--restarts K`, all start again after the exit codes 75 (stopped, saved), 76 (stuck), 134, 137
and 143 (killed by SIGABRT, SIGKILL, SIGTERM); 1 (failed) and 77 (diverged) end it.

A run's bits depend on its devices and not on how many processes they are in: a process that has
all of them adds up with Gloo too, and each has the threads of one with all. By itself a process
does so with `--config.cluster.collectives=gloo`; else XLA adds up, faster and in another order.
"""

from __future__ import annotations

import os
import random
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.launch import command as words
from scripts.launch import gang

_BELOW_EPHEMERAL = range(20000, 32000)  # ports that no outgoing connection is given by chance


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    while True:
        port = random.choice(_BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def pool_threads(devices: int) -> int:
    """How many threads XLA gives a process with so many CPU devices (its pjrt/utils.cc)."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    told = os.environ.get("NPROC", "")
    return max(int(told) if told.isdigit() else cores, devices)


def members(
    command: Sequence[str],
    *,
    processes: int,
    devices_per_process: int,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> list[gang.Member]:
    """The processes of the command, which find each other at a port (by default a free one).

    Each gets the threads that one process with all the devices would have: the last bit of a
    convolution may depend on how many there are.
    """
    if command[0] in ("python", "python3"):  # ours, which has the packages, whatever PATH says
        command = [sys.executable, *command[1:]]
    everyone = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": devices_per_process,
        "NPROC": pool_threads(processes * devices_per_process),
        words.LOCAL_DEVICES: devices_per_process,
        words.COLLECTIVES: "gloo",
        words.COORDINATOR: f"127.0.0.1:{port or free_port()}",
        words.NUM_PROCESSES: processes,
        **(env or {}),
    }
    return [
        gang.Member(str(i), words.with_environment({**everyone, words.PROCESS_ID: i}, command))
        for i in range(processes)
    ]


def main(argv: Sequence[str]) -> int:
    """Parse the flags, then print or run the processes; the exit code."""
    flags = words.Flags(__doc__)
    flags.add_argument("--processes", type=words.whole(1), required=True, metavar="N")
    flags.add_argument("--devices-per-process", type=words.whole(1), default=1, metavar="M")
    flags.add_argument("--restarts", type=words.whole(0), default=0, metavar="K")
    flags.add_argument("--port", type=words.whole(1), help="of process 0 (by default a free one)")
    flags.add_argument(
        "--grace-s", type=words.whole(0), default=30, help="seconds from SIGTERM to SIGKILL"
    )
    args, command = flags.split(argv)
    made = members(
        command, processes=args.processes, devices_per_process=args.devices_per_process,
        port=args.port, env=words.variables(args.env),
    )  # fmt: skip
    if args.dry_run:
        print("\n".join(shlex.join(member.argv) for member in made))
        return 0
    return gang.run(made, gang.Rules(grace_s=args.grace_s, restarts=args.restarts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
