"""The demo's planner: prompt bytes to blueprint ids.

    python scripts/train.py --config configs/demo/planner.py --workdir runs/demo/planner

Hardware: two CPU cores, 5.3 minutes. Expected on the evaluator's 16 held-out prompts: copy fidelity
1, no findings, IoU .83 of the quoted texts' boxes with the page's own, the same kinds of elements.
"""

from ml_collections import ConfigDict

from blueprint import vocab


def get_config() -> ConfigDict:
    """Every value of the run."""
    return ConfigDict(
        {
            "task": "planner",
            "model": {
                "blocks": {
                    "width": 128, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2,
                    "head_size": 32, "hidden": 384, "qk_norm": True, "norm_eps": 1e-6,
                    "dtype": "float32", "depth": 0,
                },
                "vocab_size": vocab.SIZE,
                "max_length": 416,
                "tie_embeddings": True,
                "prompt_vocab_size": 0,
                "remat": "none",
                "rope_theta": 10000.0,
                "rope_scaling": {
                    "factor": 1.0, "low_turns": 1.0, "high_turns": 4.0, "original_length": 8192,
                },
            },
            "data": {
                "page": {
                    "width_px": 128, "height_px": 128, "quoted": "mixed", "long_quotes": 0.0,
                },
                "num_pages": 20000,
                "batch_size": 2,
                "num_evaluation_pages": 16,
                "buckets": (),
                "prompt_tokenizer": "",
                "sources": {},
                "skip_bad": False,
            },
            "loop": {
                "num_steps": 2800,
                "seed": 0,
                "checkpoint": {"every_steps": 700},
                "log_every_steps": 50,
                "num_workers": 0,
                "optimizers": {
                    "hidden": {
                        "name": "muon", "learning_rate": 0.02, "schedule": "linear",
                        "final_fraction": 0.02,
                    },
                    "rest": {
                        "name": "adamw", "learning_rate": 3e-3, "schedule": "linear",
                        "final_fraction": 0.02, "warmup_steps": 50,
                    },
                },
            },
        }
    )  # fmt: skip
