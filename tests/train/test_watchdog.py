"""What is stuck ends in time, with 76, and says where; what is not is left alone."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.train.folder_cluster import FolderCluster
from train.exits import STUCK
from train.supervision import watchdog as watchdogs
from train.supervision.watchdog import Deadlines, Watchdog

ROOT = Path(__file__).resolve().parents[2]
START = """
import ctypes, sys, threading, time
from pathlib import Path
from tests.train.folder_cluster import FolderCluster
from train.supervision.watchdog import Deadlines, Watchdog

def sleep_in_c(library):
    mutex = ctypes.create_string_buffer(64)
    library(None).pthread_mutex_lock(mutex)
    library(None).pthread_mutex_lock(mutex)  # its owner is this thread: never

"""


def run(body, *arguments):
    """Standard output and error, exit code and seconds of a process of Python of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", START + body, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    return done.stdout, done.stderr, done.returncode, time.monotonic() - began


@pytest.mark.parametrize("how", ["time.sleep(60)", "sleep_in_c(ctypes.CDLL)", "while True: pass"])
def test_a_main_thread_that_lets_the_gil_go(how):
    out, err, code, seconds = run(f"""
def compile_forever():
    {how}

with Watchdog(FolderCluster(Path("."), 0, 1), Deadlines(compile=0.4)) as watchdog:
    watchdog.beat(41)
    print("kept in a buffer", end="")
    with watchdog.phase("compile"):
        compile_forever()
""")
    assert code == STUCK and seconds < 10
    said = re.search(r"process 0 \(host-a\) is stuck: phase compile has lasted (\S+) s", err)
    assert said and 0.4 <= float(said[1]) < 3
    assert "deadline is 0.4 s" in err and "last step done is 41" in err
    assert "in compile_forever" in err, err
    assert out == "kept in a buffer"


def test_a_main_thread_that_keeps_the_gil():
    _, err, code, seconds = run("""
def hold_on():
    sleep_in_c(ctypes.PyDLL)

with Watchdog(FolderCluster(Path("."), 0, 1), Deadlines(compile=0.4, report=0.5)) as watchdog:
    with watchdog.phase("compile"):
        hold_on()
""")
    assert code == STUCK and seconds < 10
    assert "process 0 (host-a) is stuck in phase compile past its deadline of 0.4 s" in err
    assert "keeps the GIL" in err and "in hold_on" in err


def test_a_report_that_hangs_ends_all_the_same():
    """The others' words come from a service that may be the very thing that is stuck."""
    _, err, code, seconds = run("""
class Deaf(FolderCluster):
    def get(self, key):
        sleep_in_c(ctypes.CDLL)
    def put(self, key, value):
        sleep_in_c(ctypes.CDLL)

with Watchdog(Deaf(Path("."), 0, 2), Deadlines(init=0.3, report=1)):
    time.sleep(60)
""")
    assert code == STUCK and seconds < 10
    assert "phase init has lasted" in err and "coordination service does not answer" in err


def test_the_stuck_process_is_named_by_the_one_that_waits(tmp_path):
    body = """
index = int(sys.argv[1])
cluster = FolderCluster(Path(sys.argv[2]), index, 4)
with Watchdog(None, Deadlines(step=2.5, data=0, report=1)) as watchdog:
    watchdog.cluster = cluster
    for step in range(1, 4):
        with watchdog.phase("data"):
            if index == 1 and step == 3:
                time.sleep(60)
        watchdog.beat(step)
    time.sleep(4 if index == 2 else 60)
"""
    command = [sys.executable, "-c", START + body]
    others = [
        subprocess.Popen([*command, str(i), str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)
        for i in (1, 2)
    ]
    try:
        _, err, code, _ = run(body, 0, tmp_path)
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert code == STUCK and "process 0 (host-a) is stuck: phase step" in err
    assert re.search(r"process 1 \(host-b\): phase data for \d\.\d s, last step done 2\n", err)
    assert re.search(r"process 2 \(host-c\): phase step for \d\.\d s, last step done 3\n", err)
    assert "process 3: has said nothing" in err
    assert "Not arrived: process 1 (host-b), process 3.\n" in err


def test_a_silent_process_has_not_arrived(tmp_path):
    here, there = (FolderCluster(tmp_path, i, 2) for i in range(2))
    said = {"name": there.name, "phase": "step", "step": 9, "entered": 9, "since": time.time() - 40}
    now = watchdogs._Now("step", 0.0, 9, 9)
    there.put("watchdog/1", json.dumps({**said, "at": time.time()}))
    assert "All others are as far as this one." in watchdogs.others(here, now)
    there.put("watchdog/1", json.dumps({**said, "at": time.time() - 30}))
    told = watchdogs.others(here, now)
    assert "silent for 30 s" in told and "Not arrived: process 1 (host-b)." in told


def test_no_false_alarm(monkeypatch):
    """Many short phases and steps outlast the deadline together, none alone; a phase inside stops
    the clock of the one around it, and 0 is never."""
    ended = []
    monkeypatch.setattr(Watchdog, "_end", lambda self, now, deadline: ended.append(now))
    seconds = Deadlines(init=1, step=1, data=1, evaluation=1, save=0, report=0.5)
    with Watchdog(None, seconds) as watchdog:
        with watchdog.phase("save"):
            time.sleep(1.2)
        end, step = time.monotonic() + 1.3, 0
        while time.monotonic() < end:
            with watchdog.phase("data"):
                pass
            step += 1
            watchdog.beat(step)
        assert step > 500
        with watchdog.phase("evaluation"):
            time.sleep(0.4)
            with watchdog.phase("save"):
                time.sleep(0.8)
            assert not ended
            time.sleep(1.0)
    assert [now.phase for now in ended[:1]] == ["evaluation"]
    time.sleep(0.5)  # a dead man that was left behind would end the tests here


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="deadline save is -1 s"):
        Deadlines(save=-1)
    with Watchdog(None, Deadlines()) as watchdog:
        message = r"no phase 'sleep' has .*init, restore, compile"
        with pytest.raises(ValueError, match=message), watchdog.phase("sleep"):
            pass
        caught = []

        def elsewhere():
            try:
                with watchdog.phase("save"):
                    pass
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "another thread" in caught[0]


def test_it_publishes_at_most_once_a_second(tmp_path):
    class Counting(FolderCluster):
        def put(self, key, value):
            spoken.append((key, json.loads(value)))

    spoken = []
    with Watchdog(Counting(tmp_path, 1, 2), Deadlines()) as watchdog:
        end = time.monotonic() + 1.4
        step = 0
        while time.monotonic() < end:
            watchdog.beat(step := step + 1)
    [(key, said)] = spoken
    assert key == "watchdog/1" and said["phase"] == "step" and said["step"] > 1000
    assert said["name"] == "process 1 (host-b)" and abs(said["since"] - time.time()) < 5
