"""Two real processes that talk, disagree and wait in vain; more of them on a stub service."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from tests.bundles import COMPILED_QUICKLY
from train.distributed import Cluster, ClusterConfig, ClusterError, rollcall
from train.distributed import check as cluster_check
from train.distributed import cluster as distributed
from train.distributed.agreement import disagreements, members
from train.exits import DONE, FAILED

TOY = Path(__file__).with_name("cluster_toy.py")


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def run_pair(scenario, folder, *, second=None):
    """What two processes wrote down, and their exit codes; `second` is process 1's environment."""
    address = f"localhost:{free_port()}"
    processes = []
    for i, more in enumerate([{}, second or {}]):
        env = {
            **os.environ, "XLA_FLAGS": COMPILED_QUICKLY,
            "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2",
            "LETTERPRESS_COORDINATOR": address, "LETTERPRESS_NUM_PROCESSES": "2",
            "LETTERPRESS_PROCESS_ID": str(i), **more,
        }  # fmt: skip
        command = [sys.executable, str(TOY), scenario, str(folder)]
        processes.append(
            subprocess.Popen(
                command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    logs = [process.communicate(timeout=120)[0] for process in processes]
    paths = [folder / f"said{i}.json" for i in range(2)]
    assert all(path.exists() for path in paths), "\n".join(logs)[-3000:]
    return [json.loads(path.read_text()) for path in paths], [p.returncode for p in processes]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    said, codes = run_pair("conversation", tmp_path_factory.mktemp("pair"))
    assert codes == [DONE, DONE]
    return said


def test_two_processes_know_each_other_and_compute_together(said):
    assert said[0]["names"] == said[1]["names"]
    for i in range(2):
        assert said[i]["name"] == said[0]["names"][i]
        assert said[i]["name"].startswith(f"process {i} ({socket.gethostname()}, pid ")
        for r in range(2):
            assert said[i]["gathered"][r] == [{"i": 0, "round": r}, {"i": 1, "round": r}]
        assert said[i]["colour"] == "red" and said[i]["nothing"] is None
        assert said[i]["sum"] == 0 + 1 + 2 + 3


def test_disagreement_names_field_values_and_processes(said):
    zero, one = said[0]["names"]
    for i in range(2):
        assert said[i]["same"]["error"] == ""
        assert said[i]["other"]["error"] == (
            f"the processes do not agree on config: loop.seed: {zero} has 1, {one} has 2"
        )


def test_a_barrier_names_the_missing_and_is_usable_again(said):
    zero, one = said[0]["names"]
    assert f"'meal'; not arrived: {one}:" in said[0]["late"]["error"]
    assert zero not in said[0]["late"]["error"].partition("not arrived")[2]
    assert said[0]["late"]["took_s"] < 2.4, "it waited for process 1 instead of its timeout"
    assert said[0]["alarm_s"] < 0.45, "the signal handler did not run while it waited"
    assert f"{one} came too late to 'meal'" in said[1]["late"]["error"]
    assert said[1]["late"]["took_s"] < 0.5
    assert [answer["error"] for i in range(2) for answer in said[i]["after"]] == [""] * 4


def test_the_start_check_passes_leaves_nothing_and_finds_what_is_wrong(said):
    zero, one = said[0]["names"]
    for i in range(2):
        assert said[i]["calm"]["error"] == "" and said[i]["left_behind"] == []
        error = said[i]["unshared"]["error"]
        assert error.startswith(f"the run does not start: {one} cannot see in ")
        assert "own1 what" in error and f"{zero} wrote in" in error and error.count(";") == 0
        assert f"{zero} and {one} have 2 local cpu devices" in said[i]["short"]["error"]
        assert "should be 8" in said[i]["short"]["error"]


def test_all_problems_stop_both_processes_within_seconds(tmp_path):
    second = {"JAX_NUM_CPU_DEVICES": "1", "LETTERPRESS_LOCAL_DEVICES": "2"}
    said, codes = run_pair("start", tmp_path, second=second)
    assert codes == [FAILED, FAILED]
    assert said[0]["error"] == said[1]["error"]
    for part in [
        "process 1 (", " has 1 local cpu device where there should be 2",
        "cannot see in ", "config data.seed: process 0 (", " has 0, process 1 (",
    ]:  # fmt: skip
        assert part in said[0]["error"]
    assert max(answer["took_s"] for answer in said) < cluster_check.SEEN_WITHIN_S + 5


# --- the roll call, on plain sockets ---


def meet_all(hellos, timeout_s):
    """Every process's names or error, from a thread each; a hello of None stays away."""
    address, answers = f"localhost:{free_port()}", {}

    def run(i, hello):
        try:
            answers[i] = rollcall.meet(address, hello, timeout_s)
        except ClusterError as problem:
            answers[i] = str(problem)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(hellos) if pair[1]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [answers.get(i) for i in range(len(hellos))]


def hello(i, num=3, **more):
    return rollcall.Hello(i, num, f"process {i} (host-{i})", **more)


def test_all_who_come_learn_all_names():
    names = [f"process {i} (host-{i})" for i in range(3)]
    assert meet_all([hello(0), hello(1), hello(2)], 20) == [names] * 3


def test_who_came_hears_who_did_not():
    zero, one, two = meet_all([hello(0), None, hello(2)], 1)
    assert one is None and zero == two
    assert "2 of 3 processes came to localhost:" in zero and "missing: process 1:" in zero


def test_the_same_process_twice_or_another_count_is_an_error_for_all(monkeypatch):
    monkeypatch.setattr(rollcall, "_GRACE_S", 0.5)
    twice = meet_all([hello(0), hello(1), hello(1)], 20)
    assert len(set(twice)) == 1 and "process 1 came twice (process 1 (host-1), " in twice[0]
    other = meet_all([hello(0, 2), hello(1, 4)], 20)
    assert len(set(other)) == 1
    assert "process 1 (host-1) was told of 4 processes and process 0 (host-0) of 2" in other[0]


def test_strangers_and_the_dead_are_not_counted():
    address = f"localhost:{(port := free_port())}"
    done = []
    first = threading.Thread(
        target=lambda: done.append(rollcall.meet(address, hello(0), 20)), daemon=True
    )
    first.start()
    for line in [b"GET / HTTP/1.0\r\n", b'{"letterpress": {"process": 0}}\n']:
        while True:
            try:
                with socket.create_connection(("localhost", port)) as stranger:
                    stranger.sendall(line)
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
    with socket.create_connection(("localhost", port)) as line:  # it dies before the verdict
        said = {"process": 1, "num_processes": 3, "name": "process 1 (gone)"}
        line.sendall(json.dumps({"letterpress": said}).encode() + b"\n")
        time.sleep(0.2)
    time.sleep(0.2)
    late = threading.Thread(target=lambda: rollcall.meet(address, hello(2), 20), daemon=True)
    late.start()
    time.sleep(0.2)
    assert not done, "the dead were counted"
    names = [hello(i).name for i in range(3)]
    assert rollcall.meet(address, hello(1), 20) == names
    first.join(20)
    assert done == [names]


def test_an_unreachable_coordinator_is_named_with_the_remedy():
    port = free_port()
    config = ClusterConfig(
        coordinator=f"localhost:{port}", num_processes=2, process_id=1, start_timeout_s=0.5
    )
    began = time.monotonic()
    with pytest.raises(ClusterError) as error:
        distributed.start(config)
    assert time.monotonic() - began < 5
    assert str(error.value).startswith(f"process 1 ({socket.gethostname()}, pid {os.getpid()})")
    assert f"could not reach the coordinator at localhost:{port} in 0.5 s" in str(error.value)
    assert "LETTERPRESS_COORDINATOR" in str(error.value)


def test_a_backend_that_is_there_already_stops_the_others_too(monkeypatch):
    jax.devices()
    monkeypatch.setattr(rollcall, "_GRACE_S", 0.5)
    address, answers = f"localhost:{free_port()}", []

    def other():
        try:
            rollcall.meet(address, hello(1, 2), 20)
        except ClusterError as problem:
            answers.append(str(problem))

    thread = threading.Thread(target=other)
    thread.start()
    config = ClusterConfig(coordinator=address, num_processes=2, process_id=0)
    with pytest.raises(ClusterError, match=r"cannot start: .* call start\(\) first"):
        distributed.start(config)
    thread.join(20)
    assert "process 0 (" in answers[0] and "before start()" in answers[0]


# --- more processes, on a stub of JAX's service ---


class Service:
    """What DistributedRuntimeClient does, between threads."""

    def __init__(self, num):
        self.table, self.lock = {}, threading.Lock()
        self.barriers, self.num = {}, num

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.lock:
            assert allow_overwrite or key not in self.table
            self.table[key] = value

    def key_value_dir_get(self, key):
        with self.lock:
            return [(k, v) for k, v in self.table.items() if k.startswith(key + "/")]

    def key_value_delete(self, key):
        with self.lock:
            self.table = {k: v for k, v in self.table.items() if not k.startswith(key + "/")}

    def wait_at_barrier(self, barrier_id, timeout_in_ms):
        with self.lock:
            barrier = self.barriers.setdefault(barrier_id, threading.Barrier(self.num))
        try:
            barrier.wait(timeout_in_ms / 1000)
        except threading.BrokenBarrierError as broken:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out.") from broken


def on_stub(num, call, *, absent=()):
    """The result or error of `call(cluster)` in each of so many clusters, and the service."""
    service, answers = Service(num), {}
    names = [f"process {i} (host-{i})" for i in range(num)]

    def run(i):
        config = ClusterConfig(kind="explicit", num_processes=num, process_id=i)
        try:
            answers[i] = call(Cluster(config, names, service))
        except ClusterError as problem:
            answers[i] = problem

    threads = [threading.Thread(target=run, args=(i,)) for i in range(num) if i not in absent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers, service


def test_equal_values_are_grouped():
    answers, _ = on_stub(
        4, lambda c: c.agree("config", {"a": {"b": 2 if c.process_index == 2 else 1}}, 20)
    )
    for problem in answers.values():
        assert str(problem) == (
            "the processes do not agree on config: "
            "a.b: processes 0, 1, 3 have 1, process 2 (host-2) has 2"
        )


def test_all_the_missing_are_named():
    answers, _ = on_stub(4, lambda c: c.barrier("save", 0.2), absent=(1, 3))
    assert set(answers) == {0, 2}
    for problem in answers.values():
        assert "not arrived: process 1 (host-1), process 3 (host-3):" in str(problem)


def test_the_service_keeps_no_more_after_a_hundred_calls_than_after_ten():
    def talk(cluster):
        for r in range(100):
            assert cluster.gather("step", r, 20) == [r] * 3
            cluster.barrier("save", 20)
            if r == 9:
                sizes.append(len(cluster._client.table))

    sizes = []
    _, service = on_stub(3, talk)
    assert len(service.table) <= max(sizes) <= 3 * 3 * 2
    assert len(service.barriers) == 2


def test_one_process_needs_no_service(tmp_path):
    cluster = distributed.start(ClusterConfig(kind="single"))
    assert cluster.is_first and cluster.num_processes == 1 and cluster.process_index == 0
    cluster.barrier("alone", 0)
    assert cluster.gather("x", {"a": (1, 2)}, 0) == [{"a": [1, 2]}]
    cluster.agree("x", 1, 0)
    cluster.put("k", [1])
    assert cluster.get("k") == [1] and cluster.get("other") is None
    cluster_check.check_cluster(cluster, identity={}, workdir=tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match=r"cannot write to .*file"):
        cluster_check.check_cluster(cluster, identity={}, workdir=tmp_path / "file")


# --- words ---


def test_runs_of_numbers_are_drawn_together():
    assert members([2]) == "process 2"
    assert members([0, 1, 3]) == "processes 0, 1, 3"
    assert members([*range(256), 300]) == "processes 0-255, 300"


def test_fields_that_are_missing_nested_or_of_another_type_differ():
    names = ["p0", "p1"]
    assert disagreements([{"a": 1}, {"a": 1}], names) == []
    assert disagreements([{"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}], names) == [
        "a[1].b: p0 has 2, p1 has 3"
    ]
    assert disagreements([{"a": 1, "b": {}}, {"a": "1"}], names) == [
        'a: p0 has 1, p1 has "1"', "b: p0 has {}, p1 has nothing"
    ]  # fmt: skip
    assert len(disagreements([{str(i): 0 for i in range(50)}, {}], names)) == 21


FACT = {
    "devices": 8, "platform": "gpu", "expected": {"count": 8, "why": "W", "gpus": True},
    "versions": {"jax": "1"}, "clock": [100.0, 101.0], "workdir": "/w", "trouble": "",
    "sees_token": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"devices": 1}, ["p1 has 1 local gpu device where there should be 8 gpu by W",
                          "local devices: p0 has 8, p1 has 1"]),
        ({"platform": "cpu"}, ["p1 has 8 local cpu devices where there should be 8 gpu by W: "
                               "install JAX for CUDA", 'platform: p0 has "gpu", p1 has "cpu"']),
        ({"versions": {"jax": "2"}}, ['jax: p0 has "1", p1 has "2"']),
        ({"clock": [130.9, 140.0]}, []),  # a slow network can do that
        ({"clock": [140.0, 141.0]}, ["the clock of p1 is 39 s ahead of p0's"]),
        ({"clock": [50.0, 55.0]}, ["the clock of p1 is 45 s behind of p0's"]),
        ({"jax_processes": [0, 1]}, ["p1 has JAX's index 0 of 1 processes"]),
        ({"trouble": "no space left"}, ["p1 cannot write to /w: no space left"]),
        ({"sees_token": False}, ["p1 cannot see in /w what p0 wrote in /w"]),
    ],
)  # fmt: skip
def test_what_a_process_says_of_itself_is_judged(changed, words):
    facts = [{**FACT, "jax_processes": [i, 2], **(changed if i else {})} for i in range(2)]
    lines = cluster_check.problems(facts, ["p0", "p1"])
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith(word)
