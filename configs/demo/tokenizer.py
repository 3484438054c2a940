"""The demo's visual tokenizer: 128 px pages, f8, 48 codes of 8 values a position.

    python scripts/train.py --config configs/demo/tokenizer.py --workdir runs/demo/tokenizer

Hardware: two CPU cores, about 5 minutes. Expected (see LOG.md): word accuracy of reconstructions of
held-out pages is in the README's table.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every value of the run."""
    return ConfigDict(
        {
            "task": "tokenizer",
            "model": {
                "backbone": {"downsampling": 8, "width": 192, "hidden": 384, "num_blocks": 2},
                "quantizer": {"name": "product", "levels": (8,), "num_codes": 48},
            },
            "losses": {
                "l1": 1.0, "l2": 0.0, "charbonnier": 0.0, "text_edges": 0.0, "text_features": 0.0,
            },
            "text": {"recogniser": "runs/demo/recogniser", "max_lines": 6},
            "data": {
                "page": {"width_px": 128, "height_px": 128, "quoted": "mixed"},
                "num_pages": 8000,
                "batch_size": 2,
                "folder": "",
                "skip_bad": False,
            },
            "loop": {
                "num_steps": 2500,
                "seed": 0,
                "save_every_steps": 500,
                "log_every_steps": 50,
                "eval_every_steps": 1250,
                "num_workers": 0,
                "optimizers": {
                    "hidden": {
                        "name": "muon", "learning_rate": 0.02, "schedule": "linear",
                        "final_fraction": 0.02,
                    },
                    "rest": {"name": "adamw", "learning_rate": 2e-3, "schedule": "linear"},
                },
            },
        }
    )  # fmt: skip
