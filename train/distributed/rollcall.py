"""Who is there, before JAX waits for everybody.

`jax.distributed.initialize` ends the process (SIGABRT and a C++ trace) when somebody does not come,
and names no one. So the processes meet first, over a plain socket at the coordinator's address:
process 0 listens, the others say who they are and stay on the line, and all hear the same verdict.
The port is free again when JAX's own service takes it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from train.distributed.agreement import members
from train.distributed.environment import COORDINATOR, NUM_PROCESSES, PROCESS_ID, ClusterError

_GRACE_S = 5.0


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a process says of itself; `problem` is why it cannot start, if it cannot."""

    process: int
    num_processes: int
    name: str
    problem: str = ""


def meet(address: str, hello: Hello, timeout_s: float) -> list[str]:
    """The names of all processes in order, once all are there.

    Raises `ClusterError` in every process that came, with who is missing or what is wrong.
    """
    host, port = split_address(address)
    if hello.process == 0:
        verdict = asyncio.run(_listen(address, port, hello, timeout_s))
    else:
        verdict = _call(address, host, port, hello, timeout_s)
    if verdict["problems"]:
        raise ClusterError("; ".join(verdict["problems"]))
    return verdict["names"]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[::1]:port"."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"the coordinator's address is {address!r}: give host:port")
    return host.strip("[]"), int(port)


class _Roll:
    """Who has come so far: process 0's list."""

    def __init__(self, own: Hello) -> None:
        self.own = own
        self.present = {0: own}
        self.problems: list[str] = []
        self.add(own)

    def add(self, hello: Hello) -> None:
        """Note a newcomer, and what is wrong with it."""
        first = self.present.setdefault(hello.process, hello)
        if first is not hello:
            self.problems.append(
                f"process {hello.process} came twice ({first.name}, {hello.name}): give each its "
                f"own {PROCESS_ID}, and end what is left of an earlier start"
            )
        if hello.problem:
            self.problems.append(f"{hello.name} cannot start: {hello.problem}")
        if hello.num_processes != self.own.num_processes:
            self.problems.append(
                f"{hello.name} was told of {hello.num_processes} processes and {self.own.name} of "
                f"{self.own.num_processes}: give all the same {NUM_PROCESSES}"
            )

    def remove(self, hello: Hello) -> None:
        """It died before the verdict, and may come back."""
        if self.present.get(hello.process) is hello:
            del self.present[hello.process]

    async def complete(self, address: str, timeout_s: float) -> None:
        """Return when all are there; when somebody cannot start, the rest get a moment to come and
        hear it."""
        clock = asyncio.get_running_loop().time
        deadline, late = clock() + timeout_s, False
        while len(self.present) < self.own.num_processes:
            if self.problems and not late:
                late = True
                deadline = min(deadline, clock() + _GRACE_S)
            if clock() >= deadline:
                break
            await asyncio.sleep(0.02)
        missing = sorted(set(range(self.own.num_processes)) - set(self.present))
        if missing and not self.problems:
            self.problems.append(
                f"{len(self.present)} of {self.own.num_processes} processes came to {address} in "
                f"{timeout_s:g} s; missing: {members(missing)}: see their logs, or correct "
                f"{NUM_PROCESSES}"
            )

    def verdict(self) -> dict[str, Any]:
        """What everybody hears."""
        names = [self.present[i].name for i in sorted(self.present)]
        return {"names": names, "problems": self.problems}


def _parse(line: bytes) -> Hello:
    """Raises `ValueError` or `TypeError` for anything that is not one of us."""
    said = json.loads(line)["letterpress"]
    hello = Hello(**said)
    if not isinstance(hello.process, int) or hello.process < 1:
        raise ValueError(f"not a process: {hello.process!r}")
    return hello


async def _listen(address: str, port: int, own: Hello, timeout_s: float) -> Mapping[str, Any]:
    """Process 0's side."""
    roll, told = _Roll(own), asyncio.Event()
    lines: set[asyncio.Task[Any]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            lines.add(task)
        try:
            hello = _parse(await asyncio.wait_for(reader.readline(), _GRACE_S))
        except (ValueError, TypeError, KeyError, OSError, TimeoutError):
            writer.close()  # a stranger: a port scan or a health check
            return
        roll.add(hello)
        gone, heard = asyncio.ensure_future(reader.read()), asyncio.ensure_future(told.wait())
        await asyncio.wait([gone, heard], return_when=asyncio.FIRST_COMPLETED)
        if not told.is_set():
            roll.remove(hello)
        else:
            writer.write(json.dumps(roll.verdict()).encode())
            writer.write_eof()
            await asyncio.wait([gone], timeout=_GRACE_S)  # let it hang up first: no TIME_WAIT here
        gone.cancel()
        heard.cancel()
        writer.close()

    try:
        server = await asyncio.start_server(answer, port=port)
    except OSError as problem:
        raise ClusterError(
            f"{own.name} cannot listen on port {port} ({problem.strerror}): end what uses it, or "
            f"give another port in {COORDINATOR}"
        ) from problem
    await roll.complete(address, timeout_s)
    server.close()  # before the verdict: JAX's service comes to this port next
    told.set()
    await asyncio.gather(*lines, return_exceptions=True)
    return roll.verdict()


def _call(address: str, host: str, port: int, own: Hello, timeout_s: float) -> Mapping[str, Any]:
    """The others' side: knock until process 0 opens, then wait for its verdict."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            line = socket.create_connection((host, port), timeout=_GRACE_S)
            break
        except OSError as problem:  # not yet there, not yet in the name service
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"{own.name} could not reach the coordinator at {address} in {timeout_s:g} s "
                    f"({problem.strerror or problem}): start process 0 there, open the port, or "
                    f"correct {COORDINATOR}"
                ) from problem
            time.sleep(0.2)
    with line:
        line.sendall(json.dumps({"letterpress": dataclasses.asdict(own)}).encode() + b"\n")
        # process 0 gives up by its own clock, which began before this connection
        line.settimeout(timeout_s + _GRACE_S)
        try:
            with line.makefile("rb") as reply:
                return json.loads(reply.read())
        except (OSError, ValueError) as problem:
            raise ClusterError(
                f"{own.name} reached {address} and had no answer ({problem}): see the log of "
                f"process 0, or correct {COORDINATOR}"
            ) from problem
