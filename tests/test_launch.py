"""Launchers: what they print is what they run; one failure ends all; nobody is left behind."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.launch import command, gang
from tests.bundles import ROOT
from train import exits

# Run as the launched command, with the text of argv[1] after these names; it never imports JAX.
CHILD = """
import json, os, pathlib, signal, subprocess, sys, time
rank = int(os.environ.get("LETTERPRESS_PROCESS_ID", 0))
here = pathlib.Path(sys.argv[2])
def wait_for(path):
    while not (here / path).exists():
        time.sleep(0.01)
def note(name, text=""):
    (here / f"{name}.tmp{rank}").write_text(str(text))
    (here / f"{name}.tmp{rank}").rename(here / name)
exec(sys.argv[1])
"""


def child(folder, text):
    """The words of a command that runs the text."""
    return ["--", sys.executable, "-u", "-c", CHILD, text, str(folder)]


def start(script, *words, path=None):
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    argv = [sys.executable, str(ROOT / f"scripts/launch/{script}.py"), *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=env, cwd=ROOT)


def finish(process, code=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def wait_for(*paths):
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"none of {paths}"
        time.sleep(0.01)


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def all_end(pids):
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if alive(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True


def test_the_variables_are_those_that_training_reads():
    from train.distributed import environment

    for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID", "LOCAL_DEVICES", "COLLECTIVES"):
        assert getattr(command, name) == getattr(environment, name)
    assert exits.FAILED not in gang.RESTARTED and exits.DIVERGED not in gang.RESTARTED


def test_local_runs_what_it_prints(tmp_path):
    says = 'print(json.dumps([sys.argv[3:], {k: os.environ[k] for k in ("A", *NAMES)}]))'
    names = ("LETTERPRESS_COORDINATOR", "LETTERPRESS_LOCAL_DEVICES", "LETTERPRESS_NUM_PROCESSES")
    names += ("LETTERPRESS_PROCESS_ID", "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
    words = [*child(tmp_path, says.replace("NAMES", repr(names))), "it's", '"$HOME" `id`', "--", ""]
    flags = ["--processes", 2, "--devices-per-process", 3, "--port", 1234, "--env", "A=b 'c'"]
    dry, dry_err = finish(start("local", "--dry-run", *flags, *words))
    ran, ran_err = finish(start("local", *flags, *words))
    assert dry_err == ran_err == ""
    pasted = subprocess.run(["bash", "-c", dry], capture_output=True, text=True, check=True)
    lines = pasted.stdout.splitlines()
    assert sorted(ran.splitlines()) == [f"[{i}] {line}" for i, line in enumerate(lines)]
    for i, line in enumerate(lines):
        argv, env = json.loads(line)
        assert argv == ["it's", '"$HOME" `id`', "--", ""]
        assert [env["A"], *map(env.get, names)] == [
            "b 'c'", "127.0.0.1:1234", "3", "2", str(i), "cpu", "3",
        ]  # fmt: skip


def test_lines_come_whole_and_named_on_the_right_stream(tmp_path):
    text = (
        "os.write(1, b'one\\ntw'); os.write(2, b'warn\\r 50%\\r100%\\r\\n')\n"
        "time.sleep(0.1); os.write(1, b'o\\n\\nno end')"
    )
    out, err = finish(start("local", "--processes", 1, *child(tmp_path, text)))
    assert err == "[0] warn\n[0]  50%\n[0] 100%\n"
    assert out == "[0] one\n[0] two\n[0] \n[0] no end\n"
    text = "os.write(1, b'x' * 99_999 + b'\\n'); os.write(1, (b'y' * 99 + b'\\n') * 600)"
    out, _ = finish(start("local", "--processes", 1, *child(tmp_path, text)))
    assert out == "[0] " + "x" * 99_999 + "\n" + ("[0] " + "y" * 99 + "\n") * 600


def test_the_first_failure_ends_all_and_gives_the_code(tmp_path):
    """Process 0 ends by SIGTERM and leaves a child that does not; 1 does not, and has a child that
    would; 2 fails once both are ready."""
    text = """
if rank == 0:
    stubborn = subprocess.Popen(["bash", "-c", "trap '' TERM; echo; sleep 60"], stdout=-1)
    stubborn.stdout.readline(); note("pid0", stubborn.pid)
    signal.signal(signal.SIGTERM, lambda *_: (note("asked"), sys.exit(5)))
    note("ready0"); time.sleep(60)
if rank == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen(["sleep", "60"])
    note("pids", f"{os.getpid()} {grandchild.pid}"); time.sleep(60)
wait_for("ready0"); wait_for("pids"); sys.exit(77)
"""
    began = time.monotonic()
    run = start("local", "--processes", 3, "--grace-s", 1, "--restarts", 3, *child(tmp_path, text))
    _, err = finish(run, 77)
    assert "process 2 ended first, with exit code 77" in err and "starting" not in err
    assert (tmp_path / "asked").exists() and time.monotonic() - began < 30
    pids = (tmp_path / "pids").read_text() + " " + (tmp_path / "pid0").read_text()
    assert all_end([int(pid) for pid in pids.split()])


@pytest.mark.parametrize(
    ("code", "restarts", "runs", "gives"),
    [(75, 2, 2, 0), (76, 1, 2, 0), (-9, 1, 2, 0), (-6, 1, 2, 0), (75, 0, 1, 75), (1, 2, 1, 1)],
)
def test_what_starts_again(tmp_path, code, restarts, runs, gives):
    """Process 0 fails in its first run only; process 1 runs until then, or to its end."""
    text = f"""
note(f"ran{{len(list(here.glob('ran*')))}}") if rank == 0 else wait_for("ran0")
if rank == 0 and not (here / "ran1").exists():
    os.kill(os.getpid(), {-code}) if {code} < 0 else sys.exit({code})
"""
    flags = ("--processes", 2, "--restarts", restarts, "--grace-s", 5)
    _, err = finish(start("local", *flags, *child(tmp_path, text)), gives)
    assert len(list(tmp_path.glob("ran?"))) == runs
    assert err.count("starting all again") == runs - 1


def test_restarts_are_counted(tmp_path):
    text = "note(f'ran{len(list(here.glob(\"ran?\")))}'); sys.exit(75)"
    finish(start("local", "--processes", 1, "--restarts", 2, *child(tmp_path, text)), 75)
    assert len(list(tmp_path.glob("ran?"))) == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on_and_then_nothing_starts_again(tmp_path, signum):
    text = f"""
def save(*_):
    time.sleep(0.2 * rank); note(f"saved{{rank}}"); sys.exit(75)
signal.signal({int(signum)}, save)
note(f"ready{{rank}}"); time.sleep(60)
"""
    run = start("local", "--processes", 2, "--restarts", 5, *child(tmp_path, text))
    wait_for(tmp_path / "ready0", tmp_path / "ready1")
    run.send_signal(signum)
    _, err = finish(run, 75)
    assert (tmp_path / "saved0").exists() and (tmp_path / "saved1").exists()
    assert f"{signum.name} came: passed on to 2" in err and "starting" not in err


def test_no_process_outlives_a_launcher_that_was_killed(tmp_path):
    text = """
grandchild = subprocess.Popen(["sleep", "60"])
note(f"pids{rank}", f"{os.getpid()} {grandchild.pid}"); time.sleep(60)
"""
    run = start("local", "--processes", 2, *child(tmp_path, text))
    paths = [tmp_path / "pids0", tmp_path / "pids1"]
    wait_for(*paths)
    pids = [int(pid) for path in paths for pid in path.read_text().split()]
    assert all(map(alive, pids))
    run.kill()
    assert all_end(pids)
    run.communicate()


def test_without_its_keeper_the_processes_still_die_with_the_launcher(tmp_path):
    text = 'note(f"pid{rank}", os.getpid()); wait_for("go") if rank else time.sleep(60)'
    run = start("local", "--processes", 2, *child(tmp_path, text))
    wait_for(tmp_path / "pid0", tmp_path / "pid1")
    pids = [int((tmp_path / f"pid{i}").read_text()) for i in (0, 1)]
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    (keeper,) = set(map(int, children)) - set(pids)
    os.kill(keeper, signal.SIGKILL)
    (tmp_path / "go").touch()  # process 1 ends, of which the keeper cannot be told
    assert all_end(pids[1:]) and run.poll() is None
    time.sleep(0.3)
    assert run.poll() is None and alive(pids[0])
    run.kill()
    assert all_end(pids)
    run.communicate()


def fake(folder, name, text):
    """A program of that name in a folder to put before PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path.parent


def fake_ssh(folder):
    """An ssh that runs its command here, as a login shell would."""
    return fake(folder, "ssh", 'exec sh -c "${@: -1}"')


def test_ssh_runs_what_it_prints_in_the_folder_of_every_host(tmp_path):
    path = fake_ssh(tmp_path)
    says = """print(json.dumps([os.getcwd(), sys.argv[3:], os.environ["LETTERPRESS_COORDINATOR"],
os.environ["LETTERPRESS_NUM_PROCESSES"], os.environ["LETTERPRESS_LOCAL_DEVICES"], rank]))"""
    hosts = tmp_path / "hosts"
    hosts.write_text("# two\nme@node-0\n\nnode-1  # slow\n")
    flags = ("--hosts-file", hosts, "--directory", tmp_path, "--devices-per-host", 8)
    words = [*flags, *child(tmp_path, says), "it's $HOME"]
    ran, _ = finish(start("ssh", *words, path=path))
    told = [[str(tmp_path), ["it's $HOME"], "node-0:8476", "2", "8", i] for i in (0, 1)]
    lines = dict(line.split(" ", 1) for line in ran.splitlines())
    assert [json.loads(lines[f"[{host}]"]) for host in ("me@node-0", "node-1")] == told
    dry, err = finish(start("ssh", "--dry-run", *words, path=path))
    assert err == "" and [w for w in shlex.split(dry) if w == "ssh"] == ["ssh"] * 2
    pasted = subprocess.Popen(
        ["bash", "-c", f"PATH={path}:$PATH\n{dry}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert [json.loads(line) for line in pasted.stdout] == told  # its stdin is open meanwhile
    pasted.communicate(timeout=60)


@pytest.mark.parametrize("end", ["failure", "signal", "kill"])
def test_ssh_leaves_no_process_on_a_host(tmp_path, end):
    """The process of a fake host is in a group of its own, out of the launcher's reach."""
    text = """
signal.signal(signal.SIGTERM, lambda *_: (note(f"saved{rank}"), sys.exit(75)))
note(f"pids{rank}", os.getpid())
if rank == 1:
    wait_for("fail"); sys.exit(76)
time.sleep(60)
"""
    flags = ("--hosts", "node-0,node-1", "--directory", tmp_path, "--health-s", 1)
    run = start("ssh", *flags, *child(tmp_path, text), path=fake_ssh(tmp_path))
    pids = [tmp_path / "pids0", tmp_path / "pids1"]
    wait_for(*pids)
    if end == "failure":
        (tmp_path / "fail").touch()
        _, err = finish(run, 76)
        assert "process node-1 ended first, with exit code 76" in err
    elif end == "signal":
        time.sleep(1.5)
        run.terminate()
        _, err = finish(run, 75)
        assert "2 of 2 running" in err
    else:
        run.kill()
    assert all_end([int(path.read_text()) for path in pids])
    run.communicate()
    assert (tmp_path / "saved0").exists() and (tmp_path / "saved1").exists() == (end != "failure")


def test_tpu_workers_are_told_by_the_end_of_stdin(tmp_path):
    gcloud = """
case "$*" in *" create "*|*"--command=touch"*) printf '%s\\n' "$@" >> DIR/before; exit ;; esac
run=${@: -1}; sh -c "${run#--command=}" <&0 & wait $!""".replace("DIR", str(tmp_path))
    text = """
signal.signal(signal.SIGTERM, lambda *_: (note("saved"), sys.exit(75)))
print("hello"); note("pid", os.getpid()); time.sleep(60)
"""
    flags = ["--name", "pod-1", "--zone", "us-east5-a", "--directory", tmp_path, "--grace-s", 20]
    flags += ["--create", "v5litepod-16", "--version", "v2-alpha-tpuv5-lite", "--setup", "touch x"]
    path = fake(tmp_path, "gcloud", gcloud)
    dry, _ = finish(start("tpu_vm", "--dry-run", *flags, *child(tmp_path, text), path=path))
    assert not (tmp_path / "before").exists()
    run = start("tpu_vm", *flags, *child(tmp_path, text), path=path)
    wait_for(tmp_path / "pid")
    run.terminate()
    out, _ = finish(run, 75)
    assert (tmp_path / "saved").exists() and all_end([int((tmp_path / "pid").read_text())])
    assert out == f"[{socket.gethostname().rpartition('-')[2]}] hello\n"
    before = [word for line in dry.splitlines()[:2] for word in shlex.split(line)[1:]]
    assert (tmp_path / "before").read_text().splitlines() == before
    assert "--command=touch x" in before and "--accelerator-type=v5litepod-16" in before


@pytest.mark.parametrize(
    ("script", "flags", "says"),
    [
        ("local", ["--processes", "0"], "'0' is not a whole number of 1 or more"),
        ("local", ["--processes", "2", "--env", "a b=c"], "'a b=c' is not a variable"),
        ("ssh", ["--hosts", "a,-oProxyCommand=x", "--directory", "/x"], "is not a host name"),
        ("ssh", ["--hosts", "a,b,a", "--directory", "/x"], "a is listed twice"),
        ("ssh", ["--directory", "/x"], "no hosts: give --hosts"),
        ("ssh", ["--hosts", "a", "--directory", "/x; id"], "is not a folder"),
        ("tpu_vm", ["--name", "A b", "--zone", "z"], "'A b' is not a name"),
        ("tpu_vm", ["--name", "a", "--zone", "z", "--create", "v4-8"], "--version go together"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(script, flags, says):
    out, err = finish(start(script, *flags, "--dry-run", "--", "true"), 2)
    assert says in err and err.count("\n") == 1 and out == ""


def test_a_launch_without_a_command_is_refused():
    assert "no command" in finish(start("local", "--processes", 1), 2)[1]
    assert "[0] env: " in finish(start("local", "--processes", 1, "--", "no-such-program"), 127)[1]
