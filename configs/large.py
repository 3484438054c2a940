"""What the large runs share: pages, optimizer and schedule, mesh and rules, and the frame of a
decoder and of a planner.

Their order is that of the pipeline; every file's head has its command.

    configs/tokenizer/vq16.py   ->  configs/decoder/{b,xl,3b,7b}.py
    configs/tokenizer/legible.py    (a decoder of its codes: the overrides below)
    configs/planner/{1b,8b}.py

*Hardware.* v5p-256 has 128 chips (its name counts cores) in 4 x 4 x 8, v6e-256 has 256 in 16 x 16,
and 64 H100s are eight hosts of eight. Files are written for the TPUs: parameters are cut over 64
chips of a slice, and copied over the rest. On H100s cut them over the eight that NVLink joins:

    --config.loop.mesh={'data':-1,'fsdp':8}

What a backward pass keeps is the device kind's (`model.remat` "auto", `train/hardware.py`); a batch
too large for the chips can be taken in the parts that the kind is known to take, with

    --config.loop.microbatches=0

A mesh axis that does not divide a width leaves it whole, so `fsdp` is to divide 768, 1280, 3200,
4096 and 2048: all powers of two up to 128 do.

*Pages.* One code of 16 px says too little for small type, so `LARGE_TYPE` has none under 32 px.
`SMALL_TYPE` is for codes of 8 px. Limits of letters, lines and ids are above what was counted of
500 to 1500 such pages, since a page beyond them stops the run: 63 letters of 128 and 384 of 512, 55
lines of 96, 1332 ids of 2048 and 2419 of 4096 (dense ones of up to 32 and up to 64 words).

*Decoders of the legible tokenizer's codes* take, beside an encoded cache of its pages:

    --config.model.num_codes=8
    --config.model.codebook_size=4096
    --config.model.objective=masked
    --config.model.conditioning.downsampling=8
    --config.model.conditioning.max_characters=512
    --config.press.num_passes=8
    --config.data.page.min_type_px=12
    --config.data.page.dense=0.5
    --config.data.codes=('runs/large/legible_codes',)
    --config.data.tokenizer=runs/large/legible
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

RULES = {
    "B": ("data", "fsdp"), "D": "fsdp", "I": "fsdp",
    "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor", "O": "tensor",
}  # fmt: skip
"""One table for weights and activations; an axis that the mesh lacks is skipped."""

MESH = {"data": -1, "fsdp": 64}
COPIES = {"data": -1}
"""The mesh of a model that every chip holds whole."""

LARGE_TYPE = {
    "width_px": 512, "height_px": 512, "quoted": "mixed", "min_type_px": 32, "long_quotes": 0.1,
    "dense": 0.0, "num_words": (1, 64), "body_px": (12, 20),
}  # fmt: skip
SMALL_TYPE = {**LARGE_TYPE, "min_type_px": 12, "dense": 0.5}


def loop(
    *,
    num_steps: int,
    learning_rate: float,
    mesh: dict[str, int],
    ema_decay: float = 0.0,
    groups: tuple[str, ...] = ("hidden", "rest"),
) -> dict[str, Any]:
    """AdamW for every group, with LlamaGen's betas, decay and clipping; a warm-up of 2 % of the
    steps, then a cosine to a tenth of the rate."""
    optimizer = {
        "name": "adamw", "learning_rate": learning_rate, "schedule": "cosine",
        "warmup_steps": num_steps // 50, "final_fraction": 0.1, "weight_decay": 0.05, "clip": 1.0,
        "b1": 0.9, "b2": 0.95,
    }  # fmt: skip
    return {
        "num_steps": num_steps,
        "seed": 0,
        "checkpoint": {"every_steps": 2000, "keep": 3},
        "log_every_steps": 50,
        "eval_every_steps": 10000,
        "ema_decay": ema_decay,
        "num_workers": 16,
        "mesh": dict(mesh),
        "rules": dict(RULES),
        "optimizers": {group: dict(optimizer) for group in groups},
    }


def llamagen(*, width: int, num_layers: int, num_heads: int) -> dict[str, Any]:
    """A trunk of LlamaGen's GPT (Sun et al. 2024, table 1): as many kv heads as heads, and a SwiGLU
    of 8/3 of the width, rounded up to a multiple of 256."""
    return {
        "width": width, "num_layers": num_layers, "num_heads": num_heads,
        "num_kv_heads": num_heads, "head_size": width // num_heads,
        "hidden": -(-(8 * width // 3) // 256) * 256, "qk_norm": False, "norm_eps": 1e-5,
        "dtype": "bfloat16", "depth": 0,
    }  # fmt: skip


def decoder(blocks: dict[str, Any], *, batch_size: int, loop: dict[str, Any]) -> ConfigDict:
    """A decoder of the codes of `configs/tokenizer/vq16.py` that is told a blueprint.

    It is causal in raster order with LlamaGen's rotary base, so that its trunk, codes and head have
    the shapes and the meaning of LlamaGen's; a tenth of the pages is told nothing, for guidance.
    """
    return ConfigDict(
        {
            "task": "decoder",
            "model": {
                "blocks": blocks,
                "num_codes": 1,
                "codebook_size": 16384,
                "conditioning": {
                    "downsampling": 16, "max_characters": 128, "glyphs": "encoded",
                    "lock_regions": False,
                },
                "objective": "causal",
                "head": "factorised",
                "depth_blocks": {
                    "width": 512, "num_layers": 3, "num_heads": 8, "num_kv_heads": 8,
                    "head_size": 64, "hidden": 1536, "dtype": "bfloat16",
                },
                "ordered": False,
                "dropout": 0.0,
                "remat": "auto",
                "rope_theta": 10000.0,
                "num_classes": 0,
                "zero_prefix_rotation": False,
                "caption_width": 0,
                "num_caption_tokens": 120,
                "positions": "grid",
            },
            "whole_mask": 0.6,
            "drop_blueprint": 0.1,
            "drop_glyphs": 0.1,
            "press": {"num_passes": 1, "guidance": 1.5, "order": "random"},
            "data": {
                "page": dict(LARGE_TYPE),
                "num_pages": 20_000_000,
                "batch_size": batch_size,
                "num_evaluation_pages": 64,
                "codes": ("runs/large/codes",),
                "code_weights": (),
                "tokenizer": "runs/large/vq16",
            },
            "loop": loop,
        }
    )  # fmt: skip


def planner(
    model: dict[str, Any], *, page: dict[str, Any], batch_size: int, loop: dict[str, Any]
) -> ConfigDict:
    """A planner that reads and writes our own ids, in a trunk of Llama's shape."""
    return ConfigDict(
        {
            "task": "planner",
            "model": {
                "rope_theta": 500000.0,
                "rope_scaling": {
                    "factor": 1.0,
                    "low_turns": 1.0,
                    "high_turns": 4.0,
                    "original_length": 8192,
                },
                "prompt_vocab_size": 0,
                "remat": "auto",
                **model,
            },
            "data": {
                "page": {**SMALL_TYPE, **page},
                "num_pages": 100_000_000,
                "batch_size": batch_size,
                "num_evaluation_pages": 64,
                "buckets": (),
                "prompt_tokenizer": "",
                "sources": {},
                "skip_bad": False,
            },
            "loop": loop,
        }
    )
