"""The decoder of LlamaGen's GPT-7B: 32 layers of 4096, codes of VQ-16.

    python scripts/encode.py --tokenizer runs/large/vq16 --config configs/decoder/7b.py \
        --out runs/large/codes
    python scripts/train.py --config configs/decoder/7b.py --workdir runs/large/7b

Hardware (configs/large.py): v5p-256 runs it as it is, v6e-256 with the first of these, 64 H100s
with both (preflight is to say whether that is needed).

    --config.model.remat=full
    --config.loop.mesh={'data':-1,'fsdp':8}

Schedule: AdamW at 1.5e-4, 4,000 steps of warm-up, then a cosine to a tenth, 200,000 steps in all.
Expected tokens: 419.4 billion codes, 2048 pages of 1024 a step, beside 128 places for
letters a page.

Parameters: 6,750,625,793. 6,610,489,344 of them are LlamaGen-7B's trunk, codes in, norm and
codes out; the others tell it the blueprint. LlamaGen-7B itself, 6,614,589,440 with its table
of 1001 classes (6.6B by a comment of its code, for no weights of it were published), is this with

    --config.model.num_classes=1000

HBM per chip (preflight): 65.5 GB of 102 on v5p:4x4x8, MFU at most .978.
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    return large.decoder(
        large.llamagen(width=4096, num_layers=32, num_heads=32),
        batch_size=2048,
        loop=large.loop(num_steps=200_000, learning_rate=1.5e-4, mesh=large.MESH),
    )
