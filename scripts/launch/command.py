"""The words of a launch: flags that are checked, commands that are quoted, and the dry run.

Launchers need neither JAX nor our models, so that they start at once, also on a login node.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from scripts.launch.gang import SILENCE_S

# As in train/distributed/environment.py, which imports JAX; a test compares them.
COORDINATOR = "LETTERPRESS_COORDINATOR"
NUM_PROCESSES = "LETTERPRESS_NUM_PROCESSES"
PROCESS_ID = "LETTERPRESS_PROCESS_ID"
LOCAL_DEVICES = "LETTERPRESS_LOCAL_DEVICES"
COLLECTIVES = "LETTERPRESS_COLLECTIVES"
CACHE = "JAX_COMPILATION_CACHE_DIR"


def matching(pattern: str, what: str, max_chars: int = 253) -> Callable[[str], str]:
    """An argparse type: text that is all pattern; `what` ends the sentence of the error."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text) or len(text) > max_chars:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return check


def whole(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least that."""

    def check(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return check


NAME = matching(
    r"[a-z]([-a-z0-9]*[a-z0-9])?",
    "a name of up to 40 small letters, digits and hyphens that begins with a letter",
    40,
)
HOST = matching(
    r"([A-Za-z_][\w.-]*@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?",
    "a host name like node-1.example.org or user@node-1",
)
IMAGE = matching(
    r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:\w[\w.-]{0,127}|@sha256:[0-9a-f]{64})",
    "a container image with its tag or digest, like registry.example.org/letterpress:1.0",
    512,
)
WORD = matching(r"[A-Za-z0-9_][\w@%+=:,./*-]*", "one word without spaces and quotes")
_FOLDER = r"[\w~./][\w@%+=,./-]*"
FOLDER = matching(_FOLDER, "a folder without spaces, colons and quotes")
PLACE = matching(rf"{_FOLDER}|gs://[\w./-]+", "a folder, or a bucket's gs://BUCKET/FOLDER")
VARIABLE = matching(r"[A-Za-z_]\w*=[^\0\n]*", "a variable, given as NAME=VALUE", 4096)
LINE = matching(r"[^\0\n]+", "one line of shell", 4096)


class Flags(argparse.ArgumentParser):
    """Flags, `--` and the command to launch. What is wrong is said in one sentence, exit code 2."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument(
            "--dry-run", action="store_true", help="print what would run, and nothing else"
        )
        self.add_argument(
            "--env", type=VARIABLE, action="append", default=[], help="NAME=VALUE, any number"
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the flags)\n")

    def split(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and the command that comes after the first `--`."""
        at = list(argv).index("--") if "--" in argv else len(argv)
        args, command = self.parse_args(list(argv[:at])), list(argv[at + 1 :])
        if not command:
            self.error("no command: put -- python scripts/train.py ... after the flags")
        return args, command


def variables(settings: Sequence[str]) -> dict[str, str]:
    """The NAME=VALUE of `--env`."""
    return dict(setting.split("=", 1) for setting in settings)


def with_environment(settings: Mapping[str, object], command: Sequence[str]) -> tuple[str, ...]:
    """The command behind env(1), so that what is printed is what is executed."""
    return ("env", *(f"{name}={value}" for name, value in settings.items()), *command)


def elsewhere(folder: str, command: Sequence[str], *, grace_s: int, beats: bool) -> str:
    """A bash script for another machine: runs the command there, and ends it when we are gone.

    It hears of us by its stdin (`gang.Member.told_by`): names of signals are passed to the
    command's process group; at the end of file, or when `beats` stay away, it gets SIGTERM and
    after the grace SIGKILL. With a terminal ssh would send SIGHUP, without one nothing at all, and
    the command would go on and keep its accelerators.
    """
    wait = f"-t {SILENCE_S} " if beats else ""
    place = folder if folder.startswith("~") else shlex.quote(folder)
    return f"""set -m
exec 3<&0
cd {place} || exit 1
{shlex.join(command)} </dev/null 3<&- & main=$!
{{
  while read -r {wait}word <&3; do
    [ "$word" = beat ] || kill -s "$word" -- "-$main"
  done
  kill -s TERM -- "-$main"; sleep {grace_s}; kill -s KILL -- "-$main"
}} >/dev/null 2>&1 & keeper=$!
exec 2>/dev/null  # the shell's own remarks on its jobs
wait "$main"; code=$?
kill -s KILL -- "-$main" "-$keeper"
exit "$code\""""


def shell(lines: Sequence[str], *, dry_run: bool) -> int:
    """Print the shell lines, or run them, stopping at the first that fails; the exit code."""
    script = "\n".join(lines)
    if dry_run:
        print(script)
        return 0
    sys.stdout.flush()
    return subprocess.run(["bash", "-e", "-c", script], check=False).returncode


def fed(program: str, text: str) -> str:
    """Shell lines that give the text to a program's stdin."""
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"{program} <<'{end}'\n{text}{end}"
