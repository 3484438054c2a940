"""Train on every worker of a Cloud TPU VM, by gcloud:

    python scripts/launch/tpu_vm.py --name pod-1 --zone us-east5-a --directory letterpress \\
        --create v5litepod-256 --version v2-alpha-tpuv5-lite --spot \\
        --setup 'git clone URL letterpress && cd letterpress && make .venv/ready' \\
        -- .venv/bin/python scripts/train.py --config C --workdir gs://BUCKET/RUN

The workers find each other by the TPU's metadata. Lines come with the worker's number. gcloud goes
on while any worker runs, so that one that failed is left to the others' watchdogs (exit code 76).
SIGTERM to this launcher, or its death, ends the process on every worker, which saves first.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.launch import command as words
from scripts.launch import gang

# The workers are called t1v-n-0123abcd-w-7; bash gives the last part, and sed puts it before lines.
_NAMED = 'exec > >(exec sed -u "s/^/[${HOSTNAME##*-}] /") 2>&1\n'


def main(argv: Sequence[str]) -> int:
    """Parse the flags, then print or run the gcloud lines; the exit code."""
    flags = words.Flags(__doc__)
    flags.add_argument("--name", type=words.NAME, required=True, help="of the TPU VM")
    flags.add_argument("--zone", type=words.NAME, required=True)
    flags.add_argument("--project", type=words.WORD)
    flags.add_argument("--create", type=words.WORD, metavar="TYPE", help="make it first")
    flags.add_argument("--version", type=words.WORD, help="of the software, with --create")
    flags.add_argument("--spot", action="store_true", help="with --create: may be preempted")
    flags.add_argument("--setup", type=words.LINE, help="shell line run on every worker before")
    flags.add_argument("--directory", type=words.FOLDER, default="~", help="of the code, there")
    flags.add_argument("--devices-per-worker", type=words.whole(1), metavar="M")
    flags.add_argument("--cache", type=words.PLACE, help="folder of compiled programs")
    flags.add_argument("--restarts", type=words.whole(0), default=0, metavar="K")
    flags.add_argument("--grace-s", type=words.whole(1), default=300, help="SIGTERM to SIGKILL")
    args, command = flags.split(argv)
    if bool(args.create) != bool(args.version):
        flags.error("--create and --version go together: the type and its software")
    if args.spot and not args.create:
        flags.error("--spot says how to create it: give --create too")
    where = [f"--zone={args.zone}"] + ([f"--project={args.project}"] if args.project else [])
    vm = ("gcloud", "compute", "tpus", "tpu-vm")
    before: list[str] = []
    if args.create:
        kind = [f"--accelerator-type={args.create}", f"--version={args.version}"]
        spot = ["--spot"] if args.spot else []
        before.append(shlex.join([*vm, "create", args.name, *where, *kind, *spot]))
    ssh = [*vm, "ssh", args.name, *where, "--worker=all", "--batch-size=all", "--quiet"]
    if args.setup:
        before.append(shlex.join([*ssh, f"--command={args.setup}"]))
    settings: dict[str, object] = {}
    if args.devices_per_worker:
        settings[words.LOCAL_DEVICES] = args.devices_per_worker
    if args.cache:
        settings[words.CACHE] = args.cache
    there = words.with_environment({**settings, **words.variables(args.env)}, command)
    # all workers' ssh share one stdin: they can hear its end, and no words
    script = words.elsewhere(args.directory, there, grace_s=args.grace_s, beats=False)
    remote = f"bash -c {shlex.quote(_NAMED + script)}"
    member = gang.Member("", (*ssh, f"--command={remote}"), told_by="end")
    if args.dry_run:
        print("\n".join([*before, shlex.join(member.argv)]))
        return 0
    failed = words.shell(before, dry_run=False) if before else 0
    return failed or gang.run([member], gang.Rules(args.grace_s, args.restarts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
