"""The planner in the trunk of Llama 3 8B: 32 layers of 4096, our own ids, a head of its own.

    python scripts/train.py --config configs/planner/8b.py --workdir runs/large/planner_8b

Hardware (configs/large.py): v5p-256 runs it as it is, v6e-256 with the first of these, 64 H100s
with both (preflight is to say whether that is needed).

    --config.model.remat=full
    --config.loop.mesh={'data':-1,'fsdp':8}

Schedule: AdamW at 1.5e-4, 2,000 steps of warm-up, then a cosine to a tenth, 100,000 steps in all.
Expected tokens: 209.7 billion places, 512 pages of 4096 a step. Most are padding: a page (up to 64
words on the dense half of them) has about 355 ids, of which the loss counts the plan's 180.

Parameters: 6,990,409,728: 6,979,588,096 of Llama's trunk and last norm (its 8,030,261,248 without
the tables of 128,256 ids going in and out) and two tables of our 1321 ids.

HBM per chip (preflight): 16.4 GB of 102 on v5p:8x8x8, MFU at most .953.
Expected copy fidelity: not measured yet.
"""

from ml_collections import ConfigDict

from blueprint import vocab
from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    model = {
        "blocks": {
            "width": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 8, "head_size": 128,
            "hidden": 14336, "qk_norm": False, "norm_eps": 1e-5, "dtype": "bfloat16", "depth": 0,
        },
        "vocab_size": vocab.SIZE,
        "max_length": 4096,
        "tie_embeddings": False,
    }  # fmt: skip
    loop = large.loop(num_steps=100_000, learning_rate=1.5e-4, mesh=large.MESH)
    return large.planner(model, page={"num_words": (1, 64)}, batch_size=512, loop=loop)
