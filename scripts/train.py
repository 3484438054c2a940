"""Train one model: `python scripts/train.py --config configs/X.py --workdir W [--config.a.b=c]`.

A second call with the same workdir goes on from the newest checkpoint, or returns at once when it
is done. A run begins with the weights of `--config.init=RUN` (a run, or a model's folder of an
exported bundle), or with the `weights/` that an import has left in its workdir. As one of several
processes it is started by what is in `scripts/launch/`, or by a scheduler that
`train/distributed/environment.py` knows; `--config.cluster.kind=single` keeps it alone.

Exit codes say whether to start again (`train/exits.py`): 0 done, 1 an error that a restart meets
again, 75 asked to stop and saved, 76 stuck or left alone by others, 77 diverged and saved.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train import config as configs
from train.checkpoint import About
from train.compiled import keep_compiled
from train.distributed import Cluster, ClusterConfig
from train.distributed.meeting import is_lost
from train.exits import DIVERGED, FAILED, STOPPED, STUCK
from train.export.starting import require_own
from train.guard import Diverged
from train.loop import train
from train.plan import LoopConfig
from train.supervision import supervised
from train.supervision.stopping import Stopped

# these decide nothing of what is learnt, or a hash in the task says what they do
_ASIDE = ("codes", "tokenizer", "prompt_tokenizer", "num_evaluation_pages")


def run(config: Any, workdir: Path, cluster: Cluster) -> None:
    """Build the run and train it."""
    import pipeline  # what it loads may ask for devices: only once the processes know each other

    made = pipeline.run(config)
    keep_compiled(workdir)
    if cluster.is_first and not (workdir / "checkpoints").exists():  # else it stays as it was
        require_own(workdir, config.to_dict())
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    data = {k: v for k, v in config.data.to_dict().items() if k not in _ASIDE}
    contract = getattr(made.task, "contract", None) or None
    about = About({**data, **made.data}, config.to_dict(), contract, config.init)
    train(made.task, made.dataset, made.loop, workdir, evaluate=made.evaluate, about=about)


def leave(cluster: Cluster, code: int, said: str) -> NoReturn:
    """End with this code, without waiting for processes that may never come."""
    print(said, file=sys.stderr)
    if cluster.num_processes == 1:
        sys.exit(code)
    cluster.leave(code)


def main() -> None:
    """Parse the flags, watch over the process, train."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--config", type=Path, required=True)
    flags.add_argument("--workdir", type=Path, required=True)
    args, overrides = flags.parse_known_args()
    sections = {"loop": LoopConfig, "cluster": ClusterConfig}
    config = configs.load(args.config, overrides, sections=sections, defaults={"init": ""})
    loop = configs.build(LoopConfig, config.loop, path="config.loop")
    where = configs.build(ClusterConfig, config.cluster, path="config.cluster")
    with supervised(where, loop.deadlines) as watch:
        try:
            run(config, args.workdir, watch.cluster)
        except Stopped as stopped:
            leave(watch.cluster, STOPPED, f"{args.workdir}: {stopped}")
        except Diverged as problem:
            leave(watch.cluster, DIVERGED, f"{type(problem).__name__}: {problem}")
        except (ValueError, OSError, RuntimeError, FloatingPointError) as problem:
            lost = watch.cluster.num_processes > 1 and is_lost(problem)
            leave(watch.cluster, STUCK if lost else FAILED, f"{type(problem).__name__}: {problem}")
        except Exception:
            leave(watch.cluster, FAILED, traceback.format_exc())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
