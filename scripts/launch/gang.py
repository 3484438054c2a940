"""Several processes run as one: their output with names, one failure ends all, no orphan stays.

Everything happens in one thread around one `select`, so forking is safe. Each process leads a
group of its own, which is killed when its leader has ended. Should this launcher be killed, the
kernel kills the leaders (PR_SET_PDEATHSIG) and a keeper, forked before them, their groups.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Literal, Protocol, TextIO

from train.exits import DIVERGED, STOPPED, STUCK

AGREED = (STOPPED, DIVERGED)  # all processes leave with it together, once they have saved
ABORTED, KILLED, TERMINATED = 128 + 6, 128 + 9, 128 + 15
# TERMINATED: asked to stop before train/supervision/stopping.py listened, so nothing was begun
RESTARTED = (STOPPED, STUCK, ABORTED, KILLED, TERMINATED)
BEAT_S, SILENCE_S = 15, 60  # of those told by stdin: how often they hear of us, how long they wait
_LAST_S = 5.0
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_LIBC = ctypes.CDLL(None)


@dataclasses.dataclass(frozen=True)
class Member:
    """One process. `name` goes before its lines (none: they come with one already).

    A process elsewhere, where our signals do not reach, is told by its stdin (see `elsewhere` in
    scripts/launch/command.py): by "lines" with the names of signals and a beat, which it misses
    when we are gone, or by its "end", which stands for any signal.
    """

    name: str
    argv: tuple[str, ...]
    told_by: Literal["signals", "lines", "end"] = "signals"


@dataclasses.dataclass(frozen=True)
class Rules:
    """How long the others have, after one failed, between SIGTERM and SIGKILL; how often all may
    start again; and how often a line says how they are (0: never)."""

    grace_s: float = 30.0
    restarts: int = 0
    health_s: float = 0.0


class Witness(Protocol):
    """Told of every process that starts and ends, in the launcher's thread."""

    def started(self, name: str, pid: int) -> None: ...
    def ended(self, name: str, code: int) -> None: ...


def run(members: Sequence[Member], rules: Rules, witness: Witness | None = None) -> int:
    """Run all to their end and return the exit code of the first that failed (128 + n: by signal
    n), or 0.

    SIGTERM, SIGINT, SIGUSR1 and SIGHUP (as SIGTERM) are passed on to all, as often as they come,
    and then nothing starts again. Processes that were asked to stop have all the time they need.
    """
    with _listening() as heard, _keeper() as tell_keeper:
        for attempt in range(1, rules.restarts + 2):
            code = _Attempt(members, rules, heard, tell_keeper, witness).run()
            if heard.any or code not in RESTARTED or attempt > rules.restarts:
                return code
            say(f"exit code {code}: starting all again ({attempt} of {rules.restarts})")
    raise AssertionError("the last attempt returns")


def say(line: str) -> None:
    """A line of the launcher's own, on stderr."""
    print(f"launcher: {line}", file=sys.stderr, flush=True)


class _Heard:
    """The signals that came; `wake` is a file that can be read from when any did."""

    def __init__(self, wake: int) -> None:
        self.wake = wake
        self.any = False
        self.waiting: list[signal.Signals] = []

    def note(self, signum: int, _: object) -> None:
        self.any = True
        hung_up = signum == signal.SIGHUP
        self.waiting.append(signal.SIGTERM if hung_up else signal.Signals(signum))

    def take(self) -> list[signal.Signals]:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)
        taken, self.waiting = self.waiting, []
        return taken


@contextlib.contextmanager
def _listening() -> Iterator[_Heard]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    heard = _Heard(read)
    old_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    old = {signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None)}  # it only wakes
    for signum in _PASSED_ON:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup, a shell's background job
            old[signum] = signal.signal(signum, heard.note)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(old_wakeup)
        for signum, handler in old.items():
            signal.signal(signum, handler)
        os.close(read)
        os.close(write)


@contextlib.contextmanager
def _keeper() -> Iterator[Callable[[str], None]]:
    """A process that outlives us by as long as it takes to kill the groups it was told of."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.setsid()
            signal.set_wakeup_fd(-1)
            for signum in _PASSED_ON:
                signal.signal(signum, signal.SIG_IGN)
            groups: set[int] = set()
            with os.fdopen(read) as lines:
                for line in lines:  # until the launcher closes it, or is no more
                    change = groups.add if line[0] == "+" else groups.discard
                    change(int(line[1:]))
            for group in groups:
                _kill(group, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(read)

    def tell(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # somebody killed it; leaders still die with us
            os.write(write, f"{line}\n".encode())

    try:
        yield tell
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def _kill(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)


def _die_with(launcher: int) -> None:
    """In the child before exec: die when the launcher does, which may have been just now."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(KILLED)


class _Pipe:
    """One output of a process, printed in whole lines with the name before each."""

    def __init__(self, source: IO[bytes], prefix: bytes, out: TextIO) -> None:
        os.set_blocking(source.fileno(), False)
        self.source, self.prefix, self.out = source, prefix, out
        self.closed = False
        self._begun = b""  # a line that has no end yet

    def read(self) -> bool:
        """Print what has come; False if nothing has."""
        try:
            data = os.read(self.source.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        self.closed = not data
        *lines, self._begun = re.split(rb"\r\n|\r|\n", self._begun + data)  # \r: progress bars
        self._print(lines)
        return bool(data)

    def finish(self) -> None:
        """Print what is left, but not to the end of file: a process that left may hold it."""
        while self.read():
            pass
        self._print([self._begun] if self._begun else [])
        self.source.close()

    def _print(self, lines: list[bytes]) -> None:
        self.out.buffer.write(b"".join(self.prefix + line + b"\n" for line in lines))
        self.out.flush()


class _Running:
    """A member's process."""

    def __init__(self, member: Member) -> None:
        self.member = member
        launcher = os.getpid()
        self.process = subprocess.Popen(
            member.argv,
            stdin=subprocess.DEVNULL if member.told_by == "signals" else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _die_with(launcher),
        )
        self.heard_at = time.monotonic()
        prefix = f"[{member.name}] ".encode() if member.name else b""
        assert self.process.stdout and self.process.stderr
        self.pipes = [
            _Pipe(self.process.stdout, prefix, sys.stdout),
            _Pipe(self.process.stderr, prefix, sys.stderr),
        ]
        if self.process.stdin:
            os.set_blocking(self.process.stdin.fileno(), False)

    def tell(self, word: str) -> None:
        """A signal without its SIG, or "beat" (which is nothing to a process of this machine)."""
        stdin = self.process.stdin
        if stdin is None:
            if word != "beat":
                _kill(self.process.pid, signal.Signals[f"SIG{word}"])
        elif self.member.told_by == "lines":
            with contextlib.suppress(OSError):  # it is gone, or so stuck that it reads nothing
                os.write(stdin.fileno(), f"{word}\n".encode())
        elif word != "beat":
            stdin.close()

    def close(self) -> None:
        """Print its last words and close what is open to it, once it has ended."""
        for pipe in self.pipes:
            pipe.finish()
        if self.process.stdin:
            self.process.stdin.close()

    def code(self) -> int | None:
        """Its exit code once it has ended; then its group is killed, before the number is free."""
        if self.process.returncode is None:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.process.pid, flags) is None:
                return None
            _kill(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        return code if code >= 0 else 128 - code


class _Attempt:
    """All members once, from start to end."""

    def __init__(
        self,
        members: Sequence[Member],
        rules: Rules,
        heard: _Heard,
        tell_keeper: Callable[[str], None],
        witness: Witness | None,
    ) -> None:
        self.members, self.rules, self.heard, self.tell_keeper = members, rules, heard, tell_keeper
        self.witness = witness
        self.code = 0
        self.running: list[_Running] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(heard.wake, selectors.EVENT_READ)
        self.endings: list[tuple[float, str]] = []  # when to tell those that are left what
        self.beat_at = self.health_at = time.monotonic()

    def run(self) -> int:
        """The first failure's exit code. Whatever happens here, nothing of it stays running."""
        try:
            for member in self.members:
                self._start(member)
            while self.running:
                self._wait()
                for signum in self.heard.take():
                    say(f"{signum.name} came: passed on to {len(self.running)} processes")
                    self._tell(signum.name.removeprefix("SIG"))
                for one in [r for r in self.running if r.code() is not None]:
                    self._ended(one)
                self._keep_time()
        finally:
            for one in self.running:
                _kill(one.process.pid, signal.SIGKILL)
                one.process.wait()
                self.tell_keeper(f"-{one.process.pid}")
            self.selector.close()
        return self.code

    def _start(self, member: Member) -> None:
        try:
            one = _Running(member)
        except OSError as problem:
            raise SystemExit(f"launcher: cannot run {member.argv[0]}: {problem}") from problem
        self.running.append(one)
        self.tell_keeper(f"+{one.process.pid}")
        if self.witness:
            self.witness.started(member.name, one.process.pid)
        for pipe in one.pipes:
            self.selector.register(pipe.source, selectors.EVENT_READ, (one, pipe))

    def _wait(self) -> None:
        for key, _ in self.selector.select(timeout=0.2 if self.endings else 1.0):
            if key.data is not None:
                one, pipe = key.data
                if pipe.read():
                    one.heard_at = time.monotonic()
                elif pipe.closed:
                    self.selector.unregister(pipe.source)

    def _tell(self, word: str) -> None:
        for one in self.running:
            one.tell(word)

    def _ended(self, one: _Running) -> None:
        """Print its last words; if it is the first that failed, the others are to end too."""
        self.running.remove(one)
        self.tell_keeper(f"-{one.process.pid}")
        for pipe in one.pipes:
            if not pipe.closed:
                self.selector.unregister(pipe.source)
        one.close()
        code = one.code()
        if self.witness and code is not None:
            self.witness.ended(one.member.name, code)
        if code and not self.code:
            self.code = code
            say(f"process {one.member.name or 'there'} ended first, with exit code {code}")
            term_at = time.monotonic() + (self.rules.grace_s if code in AGREED else 0.0)
            kill_at = term_at + self.rules.grace_s
            self.endings = [(term_at, "TERM"), (kill_at, "KILL"), (kill_at + _LAST_S, "")]

    def _keep_time(self) -> None:
        now = time.monotonic()
        while self.running and self.endings and now >= self.endings[0][0]:
            _, word = self.endings.pop(0)
            if word:
                self._tell(word)
            else:  # those elsewhere did not answer: cut them off, and they end by themselves
                for one in self.running:
                    _kill(one.process.pid, signal.SIGKILL)
        if now >= self.beat_at:
            self.beat_at = now + BEAT_S
            self._tell("beat")
        if self.rules.health_s and now >= self.health_at + self.rules.health_s and self.running:
            self.health_at = now
            quietest = min(self.running, key=lambda one: one.heard_at)
            say(
                f"{len(self.running)} of {len(self.members)} running; "
                f"{quietest.member.name} silent longest, for {now - quietest.heard_at:.0f} s"
            )
