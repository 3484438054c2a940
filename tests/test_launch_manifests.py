"""What launchers write for SLURM and Kubernetes: valid by schema, and doing what exit codes say."""

import copy
import importlib.util
import json
import os
import re
import shlex
import subprocess

import pytest
import yaml

from scripts.launch import gang, kubernetes, slurm
from tests.bundles import ROOT
from train import exits
from train.distributed import environment

SCHEMA = json.loads((ROOT / "tests/jobset_schema.json").read_text())
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
# https://slurm.schedmd.com/sbatch.html
SBATCH = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment
constraint container container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu
cpus-per-task deadline delay-boot dependency distribution error exclude exclusive export
export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node
gpus-per-socket gpus-per-task gres gres-flags help hint hold ignore-pbs input job-name
kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu
mincpus network nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe
parsable partition power prefer priority profile propagate qos quiet reboot requeue reservation
resv-ports segment signal sockets-per-node spread-job stepmgr switches test-only thread-spec
threads-per-core time time-min tmp tres-bind tres-per-task uid usage use-min-nodes verbose
version wait wait-all-nodes wckey wrap
"""


def problems(value, schema, at="$"):
    """What of the schema (of the keywords we use) the value does not keep."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return problems(value, SCHEMA["$defs"][name], at)
    if "const" in schema:
        return [] if value == schema["const"] else [f"{at}: {value!r}"]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r}"]
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{at}: {value!r} is no {schema['type']}"]
    found = []
    if kind is dict:
        found += [f"{at}: no {name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema["additionalProperties"])
            found += problems(item, inner, f"{at}.{name}") if inner else [f"{at}.{name}: unknown"]
    elif kind is list:
        found += [] if len(value) >= schema.get("minItems", 0) else [f"{at}: too few"]
        twice = schema.get("uniqueItems") and len(set(value)) < len(value)
        found += [f"{at}: twice"] if twice else []
        for i, item in enumerate(value):
            found += problems(item, schema["items"], f"{at}[{i}]")
    elif kind is str:
        found += [] if re.search(schema.get("pattern", ""), value) else [f"{at}: {value!r}"]
    elif kind is int:
        found += [] if value >= schema.get("minimum", value) else [f"{at}: {value!r}"]
    return found


def printed(capsys, launcher, *words):
    assert launcher.main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


GPU = ["--name", "xl", "--image", "r.example.org:5000/a/letterpress:1.0", "--claim", "runs=/runs"]
GPU += ["--gpu", "nvidia-h100-80gb:8", "--nodes", "4", "--spot", "--directory", "/srv/letterpress"]
TPU = ["--name", "planner", "--image", "r.example.org/l@sha256:" + "0" * 64, "--service-account"]
TPU += ["trainer", "--tpu", "v5p:8x8x8", "--slices", "2", "--cache", "gs://bucket/compiled"]
COMMAND = ["--", "python", "scripts/train.py", "--workdir", "it's $(HOME): {no} #yaml", "", "- x"]


@pytest.mark.parametrize("flags", [GPU, TPU])
def test_a_jobset_keeps_its_schema_and_its_words(capsys, flags):
    jobset = yaml.safe_load(printed(capsys, kubernetes, *flags, *COMMAND))
    assert problems(jobset, SCHEMA) == []
    if importlib.util.find_spec("jsonschema"):
        importlib.import_module("jsonschema").validate(jobset, SCHEMA)
    (worker,) = jobset["spec"]["replicatedJobs"]
    container = worker["template"]["spec"]["template"]["spec"]["containers"][0]
    assert [word.replace("$$", "$") for word in container["command"]] == COMMAND[1:]
    # Kubernetes would put a variable for $(HOME), but not for $$(HOME)
    assert "it's $$(HOME): {no} #yaml" in container["command"]


def test_the_schema_sees_what_is_wrong(capsys):
    jobset = yaml.safe_load(printed(capsys, kubernetes, *GPU, *COMMAND))
    for change, says in [
        (lambda spec: spec["failurePolicy"].update(maxRestart=1), "maxRestart: unknown"),
        (lambda spec: spec["failurePolicy"].update(maxRestarts="1"), "no integer"),
        (lambda spec: spec["replicatedJobs"][0].pop("template"), "no template"),
        (lambda spec: spec["replicatedJobs"][0].update(name="Workers"), "'Workers'"),
    ]:
        wrong = copy.deepcopy(jobset)
        change(wrong["spec"])
        (found,) = problems(wrong, SCHEMA)
        assert says in found


def test_a_jobset_restarts_by_exit_code(capsys):
    spec = yaml.safe_load(printed(capsys, kubernetes, *GPU, "--restarts", 7, *COMMAND))["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert spec["failurePolicy"]["maxRestarts"] == 7
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    ended = set(rule["onExitCodes"]["values"])
    assert {exits.FAILED, exits.DIVERGED} <= ended and not ended & set(gang.RESTARTED)
    assert job["backoffLimit"] == 0 and job["completionMode"] == "Indexed"
    container = job["template"]["spec"]["containers"][0]
    assert rule["onExitCodes"]["containerName"] == container["name"]


def test_the_pods_of_gpu_nodes_find_each_other(capsys, monkeypatch):
    jobset = yaml.safe_load(printed(capsys, kubernetes, *GPU, *COMMAND))
    (worker,) = jobset["spec"]["replicatedJobs"]
    job = worker["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["completions"] == job["parallelism"] == 4 and worker["replicas"] == 1
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-spot": "true",
    }
    for name in [n for n in os.environ if n.startswith(("LETTERPRESS", "SLURM", "OMPI", "JAX_C"))]:
        monkeypatch.delenv(name)
    for variable in pod["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # as the cluster sets them
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    found = environment.resolved(environment.ClusterConfig())
    # <jobset>-<replicated job>-<job>-<pod>.<jobset>, as JobSet's API documents
    assert found.coordinator == f"xl-{worker['name']}-0-0.xl:8476"
    assert (found.kind, found.num_processes, found.process_id) == ("kubernetes", 4, 3)
    assert found.local_devices == 8


@pytest.mark.parametrize(
    ("tpu", "chips_per_host", "hosts", "chips", "accelerator"),
    [
        ("v5e:16x16", None, 64, 4, "tpu-v5-lite-podslice"),
        ("v5e:2x4", 8, 1, 8, "tpu-v5-lite-podslice"),
        ("v5e:1x1", None, 1, 1, "tpu-v5-lite-podslice"),
        ("v6e:4x4", None, 4, 4, "tpu-v6e-slice"),
        ("v4:2x2x2", None, 2, 4, "tpu-v4-podslice"),
        ("v5p:8x8x8", None, 128, 4, "tpu-v5p-slice"),
    ],
)
def test_the_nodes_of_a_tpu_slice(tpu, chips_per_host, hosts, chips, accelerator):
    nodes = kubernetes.tpu_nodes(tpu, 2, chips_per_host)
    assert (nodes.pods_per_job, nodes.count, nodes.jobs) == (hosts, chips, 2)
    assert nodes.selector == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": tpu.split(":")[1],
    }


def test_tpu_slices_are_jobs_on_node_pools_of_their_own(capsys):
    jobset = yaml.safe_load(printed(capsys, kubernetes, *TPU, *COMMAND))
    (worker,) = jobset["spec"]["replicatedJobs"]
    assert worker["replicas"] == 2 and worker["template"]["spec"]["completions"] == 128
    (placed,) = jobset["metadata"]["annotations"].items()
    assert placed == (
        "alpha.jobset.sigs.k8s.io/exclusive-topology", "cloud.google.com/gke-nodepool",
    )  # fmt: skip
    container = worker["template"]["spec"]["template"]["spec"]["containers"][0]
    assert {e["name"]: e["value"] for e in container["env"]} == {  # GKE tells the rest
        "LETTERPRESS_LOCAL_DEVICES": "4", "JAX_COMPILATION_CACHE_DIR": "gs://bucket/compiled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("launcher", "words", "says"),
    [
        (kubernetes, [*GPU, "--image", "letterpress"], "is not a container image with its tag"),
        (kubernetes, [*GPU, "--name", "x" * 41], "is not a name of up to 40"),
        (kubernetes, [*GPU, "--claim", "runs"], "'runs' is not a volume claim"),
        (kubernetes, [*TPU, "--tpu", "v5e:4x4x4"], "'v5e:4x4x4' is no TPU slice like v5e:16x16"),
        (kubernetes, [*TPU, "--tpu", "v9:4x4"], "kinds are v4, v5e, v5p, v6e"),
        (kubernetes, [*TPU, "--chips-per-host", "3"], "512 chips of v5p:8x8x8 are no whole number"),
        (slurm, ["--partition", "a b"], "'a b' is not one word"),
        (slurm, ["--sbatch", "mem=8G\n"], "is not an option of sbatch"),
        (slurm, ["--time", "soon"], "'soon' is not a time"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(capsys, launcher, words, says):
    with pytest.raises(SystemExit) as ended:
        launcher.main([*words, *COMMAND])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and says in err and err.count("\n") == 1


JOB = ["--name", "xl", "--nodes", "2", "--gpus-per-node", "8", "--cpus-per-process", "12"]
JOB += ["--time", "1-00:00:00", "--partition", "gpu", "--account", "lab", "--sbatch", "mem=0"]


def sbatch_options(text):
    """The options of the lines that sbatch reads: those before the first command."""
    head = re.split(r"^[^#\n]", text, maxsplit=1, flags=re.M)[0]
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", head, re.M)
    assert len(found) == text.count("#SBATCH")
    return dict(found)


@pytest.mark.parametrize(("per", "tasks", "devices"), [("gpu", "8", "1"), ("node", "1", "8")])
def test_an_sbatch_file(capsys, tmp_path, per, tasks, devices):
    where = ["--directory", tmp_path, "--logs", tmp_path / "logs", "--process-per", per]
    text = printed(capsys, slurm, *JOB, *where, *COMMAND)
    options = sbatch_options(text)
    assert set(options) <= set(SBATCH.split())
    assert options["signal"] == "USR1@120" and "requeue" in options and options["mem"] == "0"
    assert (options["nodes"], options["ntasks-per-node"]) == ("2", tasks)
    assert options["gpus-per-node"] == "8" and options["cpus-per-task"] == "12"
    assert f"export LETTERPRESS_LOCAL_DEVICES={devices}\n" in text
    assert re.search(r"^srun --kill-on-bad-exit=1 --cpus-per-task=12 ", text, re.M)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    dry = printed(capsys, slurm, *JOB, *where, "--submit", "--dry-run", *COMMAND)
    assert not (tmp_path / "logs").exists()
    submitted = dry.split("sbatch <<'END'\n")
    assert submitted[0] == f"mkdir -p {tmp_path}/logs {tmp_path}/logs/compiled\n"
    assert submitted[1] == text + "END\n"


SRUN = """
while [ "$1" != bash ]; do shift; done
SLURM_PROCID=0 "$@" & zero=$!
SLURM_PROCID=1 "$@" & one=$!
wait $zero; code=$?; wait $one; other=$?
exit $((code > other ? code : other))"""  # srun gives the highest


@pytest.mark.parametrize(
    ("codes", "job", "gives", "requeued"),
    [
        ((0, 0), (0, "RUNNING"), 0, False),
        ((75, 75), (0, "RUNNING"), 75, True),
        ((75, 75), (4, "RUNNING"), 75, True),
        ((75, 75), (5, "RUNNING"), 75, False),  # that was the last of 5
        ((75, 75), (0, "COMPLETING"), 75, False),  # somebody cancelled the job
        ((77, 77), (0, "RUNNING"), 77, False),
        ((76, 137), (0, "RUNNING"), 76, True),
        ((1, 137), (0, "RUNNING"), 1, False),  # the failure, not the task killed for it
        ((0, 134), (0, "RUNNING"), 134, True),
    ],
)
def test_a_slurm_job_is_queued_again_by_exit_code(capsys, tmp_path, codes, job, gives, requeued):
    restarted, state = job
    programs = {"srun": SRUN, "squeue": f"echo {state}", "scontrol": f"echo $* >{tmp_path}/asked"}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    then = 'until [ -s "$failures" ]; do sleep 0.01; done; ' if codes[0] else ""
    task = f"[ $SLURM_PROCID = 0 ] && exit {codes[0]}; {then}exit {codes[1]}"
    where = ["--directory", tmp_path, "--logs", tmp_path, "--restarts", 5]
    text = printed(capsys, slurm, *JOB, *where, "--", "bash", "-c", task)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    env |= {"SLURM_RESTART_COUNT": str(restarted)} if restarted else {}
    ran = subprocess.run(["bash"], input=text, text=True, capture_output=True, env=env)
    assert ran.returncode == gives, ran.stderr
    asked = tmp_path / "asked"
    assert (asked.read_text().split() == ["requeue", "42"]) if requeued else not asked.exists()
    if codes[0]:
        assert (
            f"process 0 ({os.uname().nodename}) ended first, with exit code {gives}" in ran.stdout
        )


def test_a_task_saves_after_its_signal_though_its_shell_gets_it_too(tmp_path):
    words = shlex.split(slurm._TASK.format(agreed="75|77").join("''"))
    task = subprocess.Popen(
        ["bash", "-c", words[0], "task", "bash", "-c",
         "trap 'sleep 0.1; echo saved; exit 75' USR1; echo ready; sleep 20 & wait"],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"failures": str(tmp_path / "failures"), "SLURM_PROCID": "3"},
    )  # fmt: skip
    assert task.stdout.readline() == "ready\n"
    os.killpg(task.pid, 10)  # SIGUSR1, as slurmstepd sends it
    assert task.stdout.readline() == "saved\n" and task.wait(timeout=20) == 0
    assert (tmp_path / "failures").read_text().split()[:2] == ["75", "3"]
