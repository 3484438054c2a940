"""The planner in the trunk of Llama 3.2 1B: 16 layers of 2048, our own ids, tied head.

    python scripts/train.py --config configs/planner/1b.py --workdir runs/large/planner_1b

Hardware (configs/large.py): v5p-256 and v6e-256 run it as it is, 64 H100s with

    --config.loop.mesh={'data':-1,'fsdp':8}

Schedule: AdamW at 3e-4, 2,000 steps of warm-up, then a cosine to a tenth, 100,000 steps in all.
Expected tokens: 209.7 billion places, 1024 pages of 2048 a step. Most are padding: a page (up to 32
words on the dense half of them) has about 270 ids, of which the loss counts the plan's 135.

Parameters: 975,851,520: 973,146,112 of Llama's trunk and last norm (its 1,235,814,400 without the
table of 128,256 ids) and a table of our 1321 ids.

HBM per chip (preflight): 20.1 GB of 102 on v5p:4x4x8, MFU at most .947.
Expected copy fidelity: not measured yet.
"""

from ml_collections import ConfigDict

from blueprint import vocab
from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    model = {
        "blocks": {
            "width": 2048, "num_layers": 16, "num_heads": 32, "num_kv_heads": 8, "head_size": 64,
            "hidden": 8192, "qk_norm": False, "norm_eps": 1e-5, "dtype": "bfloat16", "depth": 0,
        },
        "vocab_size": vocab.SIZE,
        "max_length": 2048,
        "tie_embeddings": True,
    }  # fmt: skip
    loop = large.loop(num_steps=100_000, learning_rate=3e-4, mesh=large.MESH)
    return large.planner(model, page={"num_words": (1, 32)}, batch_size=1024, loop=loop)
