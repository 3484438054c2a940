"""The tokenizer of LlamaGen's VQ-16: VQGAN's convolutions, f16, one of 16384 codes a position.

    python scripts/train.py --config configs/tokenizer/vq16.py --workdir runs/large/vq16 \
        --config.perceptual.weights=VGG16.safetensors

Without the weights of a VGG16 (tokenizer/perceptual.py) it trains without LPIPS, and says so.
LlamaGen's recipe (train_vq.py, Sun et al. 2024) but for pages of 512 px, the schedule, codes that
start by k-means and are drawn anew when they die, and a critic with GroupNorm. Photographs come by
`--config.data.sources` (train/data/sources.py).

Hardware (configs/large.py): v5p-256 and v6e-256 (one or two pages a chip) and 64 H100s (four) run
it as it is: every chip holds all of it.

Schedule: AdamW at 1e-4, 4,000 steps of warm-up, then a cosine to a tenth, 200,000 steps in all; the
critic joins after 20,000. Expected tokens: 52.4 billion codes, 256 pages of 1024 a step.

Parameters: 71,883,403 (72M by LlamaGen's README): encoder 29,300,232, decoder 42,452,099, codebook
131,072; beside them the critic's 2,765,633.

HBM per chip (preflight): 22.1 GB of 102 on v5p:4x4x8, MFU at most .264
(by memory traffic; without the perceptual loss, whose weights were not there).
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    return ConfigDict(
        {
            "task": "tokenizer",
            "model": {
                "backbone": {
                    "name": "conv", "downsampling": 16, "width": 128, "num_blocks": 2,
                    "conv": {
                        "multipliers": (1, 1, 2, 2, 4), "attention_levels": (-1,),
                        "middle_attention": True, "latent": 256, "num_groups": 32,
                    },
                },
                "quantizer": {
                    "name": "vq", "num_codes": 1,
                    "codebook": {
                        "size": 16384, "width": 8, "cosine": True, "learning": "gradient",
                        "commitment": 0.25, "decay": 0.99, "restart_below": 0.1,
                    },
                },
                "dtype": "bfloat16",
            },
            "losses": {
                "l1": 0.0, "l2": 1.0, "charbonnier": 0.0, "text_edges": 0.0, "text_features": 0.0,
                "perceptual": 1.0,
            },
            "perceptual": {"weights": ""},
            "text": {"recogniser": "", "max_lines": 96},
            "critic": {
                "weight": 0.5, "start_step": 20000, "loss": "hinge", "adaptive": False,
                "lecam": 0.0, "lecam_decay": 0.99, "width": 64, "num_layers": 3, "norm": "group",
                "num_groups": 32,
            },
            "data": {
                "page": dict(large.LARGE_TYPE),
                "num_pages": 20_000_000,
                "batch_size": 256,
                "num_evaluation_pages": 64,
                "buckets": (),
                "sources": {},
                "skip_bad": False,
            },
            "loop": large.loop(
                num_steps=200_000, learning_rate=1e-4, mesh=large.COPIES, ema_decay=0.999,
                groups=("hidden", "rest", "critic"),
            ),
        }
    )  # fmt: skip
