"""The demo's line recogniser: lines of 128 px pages to bytes, for the tokenizer's text loss.

    python scripts/train.py --config configs/demo/recogniser.py --workdir runs/demo/recogniser

Hardware: one x86 core, 2.5 minutes. Expected: .957 of the 208 lines of the evaluator's 64 held-out
pages exact, 0.75 % of characters wrong (.958 of 829 lines on 256 further pages; see LOG.md).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every value of the run."""
    return ConfigDict(
        {
            "task": "recogniser",
            "model": {
                "height_px": 24, "width_px": 156, "strip_px": 3,
                "width": 128, "hidden": 256, "num_blocks": 3,
                "max_lines": 6, "max_bytes": 20, "jitter": 0.25, "stroke_jitter": 0.7,
            },
            "data": {
                "page": {"width_px": 128, "height_px": 128, "quoted": "mixed"},
                "num_pages": 40000,
                "batch_size": 4,
                "num_evaluation_pages": 16,
                "buckets": (),
                "sources": {},
                "skip_bad": False,
            },
            "loop": {
                "num_steps": 1500,
                "seed": 0,
                "checkpoint": {"every_steps": 500},
                "log_every_steps": 50,
                "eval_every_steps": 500,
                "num_workers": 0,
                "optimizers": {
                    "hidden": {
                        "name": "muon", "learning_rate": 0.02, "schedule": "linear",
                        "final_fraction": 0.02,
                    },
                    "rest": {
                        "name": "adamw", "learning_rate": 2e-3, "schedule": "linear",
                        "final_fraction": 0.02,
                    },
                },
            },
        }
    )  # fmt: skip
