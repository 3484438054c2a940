"""Train under SLURM: print the sbatch file, or submit it with `--submit`:

    python scripts/launch/slurm.py --name decoder-xl --nodes 8 --gpus-per-node 8 \\
        --partition gpu --time 1-00:00:00 --directory /srv/letterpress --logs /srv/logs --submit \\
        -- .venv/bin/python scripts/train.py --config C --workdir /srv/runs/W

One process a GPU, all of whose node's GPUs it sees and takes its share of; `--process-per node`
for one a node. Two minutes before the time is over, and at preemption, all save and exit with 75;
after 75, 76, 134, 137 and 143 the job is queued again, up to `--restarts` times. The processes find
each other by SLURM's variables.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.launch import command as words
from scripts.launch import gang

TIME = words.matching(r"(\d+-)?\d{1,2}(:\d\d){0,2}|\d+", "a time like 1-12:00:00 or 90 (minutes)")
OPTION = words.matching(
    r"[a-z][a-z-]*(=[\w@%+=:,./*\[\]()&|-]+)?", "an option of sbatch, given as NAME or NAME=VALUE"
)

# Each task notes its failure, for srun tells the highest code of all, which is often that of those
# it killed. A code on which all agreed is no bad exit to srun, which would kill those still saving.
_TASK = """\
trap : TERM INT USR1
"$@"
code=$?
[ "$code" = 0 ] || echo "$code $SLURM_PROCID $(hostname)" >> "$failures"
case "$code" in {agreed}) exit 0 ;; esac
exit "$code\""""

_SCRIPT = """\
#!/bin/bash
{options}

trap : TERM USR1  # they are for the tasks; this shell waits
cd {directory} || exit 1
{setup}{exports}
export failures={logs}/{name}-$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.failures
srun --kill-on-bad-exit=1 {srun}bash -c {task} task \\
  {command}
code=$?
if [ -s "$failures" ]; then
  read -r code process host < "$failures"
  echo "process $process ($host) ended first, with exit code $code"
fi
case "$code" in
  {restarted})
    # a job that was cancelled is no longer running, and stays cancelled
    state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)
    if [ "$state" = RUNNING ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
      echo "queueing the job again ($((${{SLURM_RESTART_COUNT:-0}} + 1)) of {restarts})"
      scontrol requeue "$SLURM_JOB_ID"
    fi ;;
esac
exit "$code"
"""


def sbatch_file(args: Namespace, command: Sequence[str]) -> str:
    """The text that sbatch takes."""
    per_node = args.gpus_per_node if args.process_per == "gpu" else 1
    options = {
        "job-name": args.name,
        "nodes": args.nodes,
        "ntasks-per-node": per_node,
        "gpus-per-node": args.gpus_per_node,
        "cpus-per-task": args.cpus_per_process,
        "time": args.time,
        "partition": args.partition,
        "account": args.account,
        "signal": "USR1@120",
        "open-mode": "append",  # a job that starts again goes on in its log
        "output": f"{args.logs}/%x-%j.log",
    }
    lines = [f"--{name}={value}" for name, value in options.items() if value]
    lines += ["--requeue", *(f"--{option}" for option in args.sbatch)]
    exports = {
        words.LOCAL_DEVICES: args.gpus_per_node // per_node,
        words.CACHE: args.cache or f"{args.logs}/compiled",
        **words.variables(args.env),
    }
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH {line}" for line in lines),
        directory=args.directory,
        setup=f"{args.setup}\n" if args.setup else "",
        exports="\n".join(f"export {n}={shlex.quote(str(v))}" for n, v in exports.items()),
        logs=args.logs,
        name=args.name,
        # srun does not take it over from sbatch since SLURM 22.05
        srun=f"--cpus-per-task={args.cpus_per_process} " if args.cpus_per_process else "",
        task=shlex.quote(_TASK.format(agreed="|".join(map(str, gang.AGREED)))),
        command=shlex.join(command),
        restarted="|".join(map(str, gang.RESTARTED)),
        restarts=args.restarts,
    )


def main(argv: Sequence[str]) -> int:
    """Parse the flags, then print the file or submit it; the exit code."""
    flags = words.Flags(__doc__)
    flags.add_argument("--name", type=words.NAME, required=True, help="of the job")
    flags.add_argument("--nodes", type=words.whole(1), required=True)
    flags.add_argument("--gpus-per-node", type=words.whole(1), required=True)
    flags.add_argument("--process-per", choices=("gpu", "node"), default="gpu")
    flags.add_argument("--cpus-per-process", type=words.whole(1))
    flags.add_argument("--time", type=TIME, help="until SLURM ends it; it may start again")
    flags.add_argument("--partition", type=words.WORD)
    flags.add_argument("--account", type=words.WORD)
    flags.add_argument("--sbatch", type=OPTION, action="append", default=[], metavar="OPTION=VALUE")
    flags.add_argument("--directory", type=words.FOLDER, required=True, help="of the code")
    flags.add_argument("--logs", type=words.FOLDER, required=True, help="on the nodes, shared")
    flags.add_argument("--cache", type=words.FOLDER, help="of compiled programs (LOGS/compiled)")
    flags.add_argument("--setup", type=words.LINE, help="shell line before: module load ...")
    flags.add_argument("--restarts", type=words.whole(0), default=100, metavar="K")
    flags.add_argument("--submit", action="store_true", help="give it to sbatch")
    args, command = flags.split(argv)
    text = sbatch_file(args, command)
    if not args.submit:
        print(text, end="")
        return 0
    # SLURM does not make the folder of the log, and a job without one fails in silence
    folders = f"mkdir -p {args.logs} {args.cache or args.logs + '/compiled'}"
    return words.shell([folders, words.fed("sbatch", text)], dry_run=args.dry_run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
