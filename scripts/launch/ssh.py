"""Train on a list of hosts, one process a host that takes all its accelerators, by plain ssh:

    python scripts/launch/ssh.py --hosts node-1,node-2 --directory /srv/letterpress \\
        --devices-per-host 8 -- .venv/bin/python scripts/train.py --config C --workdir W

The first host is process 0 and must be reachable from the others at `--port`. Code, environment and
workdir are the same paths on every host. Ssh must not ask for anything (keys in an agent). Lines
come with the host; the first that fails ends the others and gives the exit code (255: ssh itself),
and a line a minute says how many run and who is silent. When this launcher or the connection is
gone, every host ends its process by itself within 60 s and the grace.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.launch import command as words
from scripts.launch import gang

_SSH = (
    "ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
)  # fmt: skip


def hosts_of(listed: str | None, file: Path | None) -> list[str]:
    """The hosts of a comma-separated list or of a file, one a line, `#` begins a comment.

    Raises `ValueError` for none, for one that is listed twice, and for what is no host's name.
    """
    hosts = listed.split(",") if listed else []
    if file:
        lines = file.read_text().splitlines()
        hosts += [text for line in lines if (text := line.split("#")[0].strip())]
    if not hosts:
        raise ValueError("no hosts: give --hosts a,b or --hosts-file F")
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise ValueError(f"{twice[0]} is listed twice, and a host runs one process")
    return [words.HOST(host) for host in hosts]


def main(argv: Sequence[str]) -> int:
    """Parse the flags, then print or run one ssh a host; the exit code."""
    flags = words.Flags(__doc__)
    flags.add_argument("--hosts", metavar="A,B", help="[user@]host, the first is process 0")
    flags.add_argument("--hosts-file", type=Path, help="one host a line")
    flags.add_argument("--directory", type=words.FOLDER, required=True, help="of the code")
    flags.add_argument("--devices-per-host", type=words.whole(1), metavar="M")
    flags.add_argument("--port", type=words.whole(1), default=8476, help="of process 0")
    flags.add_argument("--cache", type=words.PLACE, help="folder of compiled programs")
    flags.add_argument("--restarts", type=words.whole(0), default=0, metavar="K")
    flags.add_argument("--grace-s", type=words.whole(1), default=30, help="SIGTERM to SIGKILL")
    flags.add_argument("--health-s", type=words.whole(0), default=60, help="0: no such line")
    args, command = flags.split(argv)
    try:
        hosts = hosts_of(args.hosts, args.hosts_file)
    except (ValueError, OSError, argparse.ArgumentTypeError) as problem:
        flags.error(str(problem))
    everyone: dict[str, object] = {
        words.COORDINATOR: f"{hosts[0].split('@')[-1]}:{args.port}",
        words.NUM_PROCESSES: len(hosts),
    }
    if args.devices_per_host:
        everyone[words.LOCAL_DEVICES] = args.devices_per_host
    if args.cache:
        everyone[words.CACHE] = args.cache
    everyone |= words.variables(args.env)
    members = []
    for i, host in enumerate(hosts):
        there = words.with_environment({**everyone, words.PROCESS_ID: i}, command)
        script = words.elsewhere(args.directory, there, grace_s=args.grace_s, beats=True)
        argv_here = (*_SSH, host, f"bash -c {shlex.quote(script)}")
        members.append(gang.Member(host, argv_here, told_by="lines"))
    if args.dry_run:
        print("\n".join(shlex.join(member.argv) for member in members))
        return 0
    return gang.run(members, gang.Rules(args.grace_s, args.restarts, args.health_s))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
