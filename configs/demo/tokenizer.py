"""The demo's visual tokenizer: 128 px pages, f8, 48 codes of 8 values a position.

    python scripts/train.py --config configs/demo/tokenizer.py --workdir runs/demo/tokenizer

Hardware: one CPU core, 6.6 minutes (two: 3.2). Expected: word accuracy of reconstructions .982 on
the evaluator's 16 held-out pages (.960 on the benchmark's 96), 26.4 dB, SSIM .860; .964 and .966
were seen too, for rounding differs between versions of the loop.
"""

from ml_collections import ConfigDict

MODEL = {
    "backbone": {
        "name": "patch", "downsampling": 8, "width": 192, "hidden": 384,
        "num_blocks": 2,
        "conv": {
            "multipliers": (1, 2, 2, 4), "attention_levels": (-1,),
            "middle_attention": True, "latent": 256, "num_groups": 32,
        },
        "vit": {"num_heads": 4, "qk_norm": True},
    },
    "quantizer": {
        "name": "product", "part": "fsq", "levels": (8,), "num_codes": 48,
        "codebook": {
            "size": 1024, "width": 8, "cosine": True, "learning": "gradient",
            "commitment": 0.25, "decay": 0.99, "restart_below": 0.1,
            "rotation": False, "temperature": 0.1, "entropy": 0.0,
        },
        "bits": {
            "bits": 8, "commitment": 0.25, "entropy": 0.1, "diversity": 1.0,
            "temperature": 0.1,
        },
    },
}  # fmt: skip


def get_config() -> ConfigDict:
    """Every value of the run."""
    return ConfigDict(
        {
            "task": "tokenizer",
            "model": MODEL,
            "losses": {
                "l1": 1.0, "l2": 0.0, "charbonnier": 0.0, "text_edges": 0.0, "text_features": 0.0,
                "perceptual": 0.0,
            },
            "perceptual": {"weights": ""},
            "text": {"recogniser": "runs/demo/recogniser", "max_lines": 6},
            "critic": {
                "weight": 0.0, "start_step": 0, "loss": "hinge", "adaptive": True, "lecam": 0.0,
                "lecam_decay": 0.99, "width": 64, "num_layers": 3, "norm": "group",
                "num_groups": 32,
            },
            "data": {
                "page": {"width_px": 128, "height_px": 128, "quoted": "mixed"},
                "num_pages": 8000,
                "batch_size": 2,
                "num_evaluation_pages": 16,
                "buckets": (),
                "sources": {},
                "skip_bad": False,
            },
            "loop": {
                "num_steps": 2500,
                "seed": 0,
                "checkpoint": {"every_steps": 500},
                "log_every_steps": 50,
                "eval_every_steps": 1250,
                "num_workers": 0,
                "optimizers": {
                    "hidden": {
                        "name": "muon", "learning_rate": 0.02, "schedule": "linear",
                        "final_fraction": 0.02,
                    },
                    "rest": {"name": "adamw", "learning_rate": 2e-3, "schedule": "linear"},
                    "critic": {"name": "adamw", "learning_rate": 4e-4, "b1": 0.5},
                },
            },
        }
    )  # fmt: skip
