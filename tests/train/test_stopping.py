"""Whoever is asked to stop, all stop: at the same step, or at once where nothing was done yet."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.train.folder_cluster import FolderCluster
from train import mesh as meshes
from train.exits import STOPPED
from train.supervision.stopping import Stop, Stopped, agreed

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("stopping_toy.py")
ALONE = """
import ctypes, os, signal, sys, time
from pathlib import Path
from tests.train.folder_cluster import FolderCluster
from train.supervision.stopping import Stop

def compile_forever():
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)

"""


def me(signum):
    os.kill(os.getpid(), signum)
    time.sleep(0)  # Python's handler runs between two instructions


def start(*arguments):
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(line, process):
    while (said := process.stdout.readline()) and line not in said:
        pass
    assert said, process.stderr.read()


def test_signals_set_a_flag_and_handlers_are_put_back():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: heard.append(signum))
    ours = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    try:
        with Stop() as stop:
            assert stop.asked is None
            me(signal.SIGUSR1)
            me(signal.SIGTERM)
            me(signal.SIGTERM)
            assert stop.asked == "SIGUSR1" and heard == [signal.SIGUSR1]
        now = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
        assert now == ours
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_one_interrupt_asks_and_two_interrupt():
    with Stop() as stop:
        me(signal.SIGINT)
        assert stop.asked == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            me(signal.SIGINT)


def test_a_later_handler_of_someone_else_is_left_alone():
    def other(signum, frame):
        raise AssertionError

    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other
    signal.signal(signal.SIGTERM, before)


def test_what_a_library_took_is_taken_back():
    with Stop() as stop:
        ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))  # SIG_IGN, from C
        me(signal.SIGTERM)
        assert stop.asked is None
        stop.reinstall()
        me(signal.SIGTERM)
        assert stop.asked == "SIGTERM"


def test_flags_lie_one_on_each_device_and_any_one_is_enough():
    mesh = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp", "tensor")))
    with jax.set_mesh(mesh), Stop() as stop:
        calm = stop.flags(mesh)
        assert calm.sharding == sharding and calm.shape == (8, 2) and calm.dtype == jnp.int32
        assert [s.data.shape for s in calm.addressable_shards] == [(1, 2)] * 8
        assert stop.flags(mesh) is calm and not stop.agreed(mesh)
        step = jax.jit(lambda flags: agreed(flags))
        assert step(calm).tolist() == [0, 0] and step(calm).is_fully_replicated
        for device in range(8):
            rows = jnp.zeros((8, 2), jnp.int32).at[device].set(jnp.array([1, 5]))
            assert step(jax.device_put(rows, sharding)).tolist() == [1, 5]
        me(signal.SIGTERM)
        assert step(stop.flags(mesh, 7)).tolist() == [1, 7] and stop.agreed(mesh)
        assert stop.ask(mesh, 7).tolist() == [1, 7]
        assert step._cache_size() == 1  # being asked compiles nothing


def test_stopped_ends_a_process_with_its_code():
    with pytest.raises(SystemExit, match="saved at step 7") as caught:
        raise Stopped(7)
    assert caught.value.code == STOPPED == 75
    assert not isinstance(caught.value, Exception)  # what handles errors does not catch it


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_asked_while_compiling(signum):
    """The main thread is in C, a forked child that is ended by a signal is not this process, and a
    library has taken SIGTERM."""
    body = """
with Stop() as stop, stop.starting(FolderCluster(Path("."), 0, 1)):
    hear, tell = os.pipe()
    if not (child := os.fork()):
        os.write(tell, b"up")
        time.sleep(30)
        os._exit(0)
    os.read(hear, 2)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))
    time.sleep(0.5)
    assert stop.asked is None
    print("compiling", flush=True)
    compile_forever()
"""
    process = start("-c", ALONE + body)
    wait_for("compiling", process)
    process.send_signal(signum)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == STOPPED, err
    assert time.monotonic() - sent < 5
    assert f"process 0 (host-a): {signum.name} came before the first step: nothing to save" in err


def test_a_failure_after_another_process_left_is_not_a_failure(tmp_path):
    """A collective breaks when its peer leaves: that must not tell the scheduler to give up."""
    FolderCluster(tmp_path, 1, 2).put("stop/asked", "SIGTERM came")
    body = """
with Stop() as stop, stop.starting(FolderCluster(Path(sys.argv[1]), int(sys.argv[2]), 2)):
    raise RuntimeError("connection closed by peer")
"""
    alone = start("-c", ALONE + body, tmp_path / "nobody", 1)
    told = start("-c", ALONE + body, tmp_path, 1)
    _, err = told.communicate(timeout=60)
    assert told.returncode == STOPPED and "another process's signal came" in err
    _, err = alone.communicate(timeout=60)
    assert alone.returncode == 1 and "connection closed by peer" in err


def test_after_the_start_a_signal_is_only_noted():
    with Stop() as stop, stop.starting(None) as starting:
        starting.end()
        me(signal.SIGTERM)
        time.sleep(0.3)
        assert stop.asked == "SIGTERM"
        starting.end()
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("hanging, asked", [(0, 1), (1, 0)])
def test_two_processes_leave_together(hanging, asked):
    """SIGTERM to one of two: in the loop both leave after the same step; while one (it serves the
    other's keys) hangs in its compile and the other waits for it, both leave at once."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    processes = [start(TOY, port, index, hanging) for index in range(2)]
    try:
        for process in processes:
            wait_for("compiling" if hanging else "started", process)
        time.sleep(0.2)
        processes[asked].send_signal(signal.SIGTERM)
        ends = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [STOPPED] * 2, ends
    if hanging:
        assert all("before the first step: nothing to save" in err for _, err in ends), ends
    else:
        left = [re.search(r"left after step (\d+) with state (\d+)", out) for out, _ in ends]
        assert left[0] and left[1] and left[0][0] == left[1][0] and left[0][1] == left[0][2]
