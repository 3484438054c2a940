"""Train on Kubernetes: print a JobSet manifest, or create it with `--submit`:

    python scripts/launch/kubernetes.py --name decoder-xl --image R/letterpress:1.0 \\
        --gpu nvidia-h100-80gb:8 --nodes 8 --claim runs=/runs \\
        -- python scripts/train.py --config C --workdir /runs/W
    python scripts/launch/kubernetes.py --name planner-8b --image R/letterpress:1.0 \\
        --tpu v5p:8x8x8 --slices 2 -- python scripts/train.py --config C --workdir gs://BUCKET/W

One pod a node. Any pod that fails ends the job, and all pods start again; the exit codes 1, 2, 77,
126 and 127 end the set, since starting again would not help. The cluster needs the JobSet
controller; GKE's names of accelerators are used. What faster networks between GPUs need (NICs,
plugins) is the cluster's own: add it to the manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml

from scripts.launch import command as words
from train.exits import DIVERGED, FAILED

# Bad usage, a command that is not executable, one that is not there: like FAILED, for ever.
ENDED = (FAILED, 2, DIVERGED, 126, 127)
TPUS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
_PORT = 8476
_WORKERS = "workers"

GPU = words.matching(r"[a-z0-9][a-z0-9-]*:[1-9]\d*", "a GPU and how many a node, as TYPE:COUNT")
CLAIM = words.matching(r"[a-z0-9][a-z0-9-]*=/[\w./-]+", "a volume claim and its place, CLAIM=/PATH")
LABEL = words.matching(r"[\w./-]+=[\w.-]*", "a node's label, given as KEY=VALUE")


@dataclasses.dataclass(frozen=True)
class Nodes:
    """What a pod asks for: `count` of `resource`, on nodes with the labels of `selector`; and how
    many pods (`pods_per_job`) and jobs (`jobs`: slices of a TPU) there are."""

    resource: str
    count: int
    selector: dict[str, str]
    pods_per_job: int
    jobs: int = 1

    @property
    def tpu(self) -> bool:
        """Whether GKE tells the pods of each other (it does for TPUs only)."""
        return self.resource == "google.com/tpu"


def tpu_nodes(text: str, slices: int, chips_per_host: int | None) -> Nodes:
    """The nodes of slices like `v5e:16x16`; 4 chips a host unless told, which v5e's 2x4 may need.

    Raises `ValueError` for what is no slice.
    """
    kind, _, topology = text.partition(":")
    sides = [int(side) if side.isdigit() else 0 for side in topology.split("x")]
    dimensions = 3 if kind in ("v4", "v5p") else 2
    if kind not in TPUS or len(sides) != dimensions or min(sides) < 1:
        example = "v5p:8x8x8" if dimensions == 3 else "v5e:16x16"
        raise ValueError(f"{text!r} is no TPU slice like {example}; kinds are {', '.join(TPUS)}")
    chips = math.prod(sides)
    on_host = chips_per_host or min(4, chips)
    if chips % on_host:
        raise ValueError(f"{chips} chips of {text} are no whole number of hosts of {on_host}")
    selector = {
        "cloud.google.com/gke-tpu-accelerator": TPUS[kind],
        "cloud.google.com/gke-tpu-topology": topology,
    }
    return Nodes("google.com/tpu", on_host, selector, chips // on_host, slices)


def gpu_nodes(text: str, nodes: int) -> Nodes:
    """The nodes of `TYPE:COUNT`."""
    kind, _, count = text.partition(":")
    selector = {"cloud.google.com/gke-accelerator": kind}
    return Nodes("nvidia.com/gpu", int(count), selector, nodes)


def environment(args: argparse.Namespace, nodes: Nodes) -> dict[str, str]:
    """The variables of every pod; its own number is JOB_COMPLETION_INDEX, or the TPU's."""
    settings = {words.LOCAL_DEVICES: str(nodes.count)}
    if not nodes.tpu:
        first = f"{args.name}-{_WORKERS}-0-0.{args.name}"  # as JobSet names its pods
        settings[words.COORDINATOR] = f"{first}:{_PORT}"
        settings[words.NUM_PROCESSES] = str(nodes.pods_per_job)
    if args.cache:
        settings[words.CACHE] = args.cache
    return settings | words.variables(args.env)


def _literal(text: str) -> str:
    """Kubernetes would put variables for $(NAME), and takes $$ for $."""
    return text.replace("$", "$$")


def pod(args: argparse.Namespace, nodes: Nodes, command: Sequence[str]) -> dict[str, Any]:
    """The PodSpec."""
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]  # NCCL needs more than the usual 64 MB
    for i, claim in enumerate(args.claim):
        name, _, place = claim.partition("=")
        volumes.append({"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": name}})
        mounts.append({"name": f"claim-{i}", "mountPath": place})
    resources = {nodes.resource: nodes.count}
    container = {
        "name": "train",
        "image": args.image,
        "command": [_literal(word) for word in command],
        "env": [{"name": n, "value": _literal(v)} for n, v in environment(args, nodes).items()],
        "resources": {"requests": dict(resources), "limits": resources},
        "volumeMounts": mounts,
    }
    if args.directory:
        container["workingDir"] = args.directory
    labels = nodes.selector | dict(label.split("=", 1) for label in args.node_label)
    if args.spot:
        labels["cloud.google.com/gke-spot"] = "true"
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": args.grace_s,
        "nodeSelector": labels,
        "tolerations": [{"key": nodes.resource, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        "volumes": volumes,
    }
    return spec | ({"serviceAccountName": args.service_account} if args.service_account else {})


def manifest(args: argparse.Namespace, nodes: Nodes, command: Sequence[str]) -> dict[str, Any]:
    """The JobSet."""
    codes = {"containerName": "train", "operator": "In", "values": sorted(ENDED)}
    job = {
        "completionMode": "Indexed",
        "completions": nodes.pods_per_job,
        "parallelism": nodes.pods_per_job,
        "backoffLimit": 0,  # one pod that fails is all that fail
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": codes}]},
        "template": {"spec": pod(args, nodes, command)},
    }
    metadata: dict[str, Any] = {"name": args.name, "namespace": args.namespace}
    if nodes.tpu:  # a slice is a node pool, and has one job
        metadata["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        }
    ends = {
        "name": "hopeless",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": args.restarts,
                "restartStrategy": "BlockingRecreate",  # never two runs in one workdir
                "rules": [ends],
            },
            "replicatedJobs": [
                {"name": _WORKERS, "replicas": nodes.jobs, "template": {"spec": job}}
            ],
        },
    }


def main(argv: Sequence[str]) -> int:
    """Parse the flags, then print the manifest or create it; the exit code."""
    flags = words.Flags(__doc__)
    flags.add_argument("--name", type=words.NAME, required=True, help="of the JobSet")
    flags.add_argument("--namespace", type=words.NAME, default="default")
    flags.add_argument("--image", type=words.IMAGE, required=True)
    kind = flags.add_mutually_exclusive_group(required=True)
    kind.add_argument("--gpu", type=GPU, metavar="TYPE:COUNT", help="of each node")
    kind.add_argument("--tpu", metavar="KIND:TOPOLOGY", help="of each slice, like v5e:16x16")
    flags.add_argument("--nodes", type=words.whole(1), default=1, help="with --gpu")
    flags.add_argument("--slices", type=words.whole(1), default=1, help="with --tpu")
    flags.add_argument("--chips-per-host", type=words.whole(1), help="with --tpu, if not 4")
    flags.add_argument("--node-label", type=LABEL, action="append", default=[], metavar="K=V")
    flags.add_argument("--spot", action="store_true", help="on nodes that may be preempted")
    flags.add_argument("--claim", type=CLAIM, action="append", default=[], metavar="CLAIM=/PATH")
    flags.add_argument("--directory", type=words.FOLDER, help="of the code in the image")
    flags.add_argument("--cache", type=words.PLACE, help="folder of compiled programs")
    flags.add_argument("--service-account", type=words.NAME)
    flags.add_argument("--grace-s", type=words.whole(1), default=300, help="to save in")
    flags.add_argument("--restarts", type=words.whole(0), default=100, metavar="K")
    flags.add_argument("--submit", action="store_true", help="give it to kubectl create")
    args, command = flags.split(argv)
    try:
        nodes = (
            tpu_nodes(args.tpu, args.slices, args.chips_per_host)
            if args.tpu
            else gpu_nodes(args.gpu, args.nodes)
        )
    except ValueError as problem:
        flags.error(str(problem))
    text = yaml.safe_dump(manifest(args, nodes, command), sort_keys=False, width=100)
    if not args.submit:
        print(text, end="")
        return 0
    return words.shell([words.fed("kubectl create -f -", text)], dry_run=args.dry_run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
