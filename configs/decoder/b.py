"""The decoder of LlamaGen-B's shape: 12 layers of 768, codes of VQ-16.

    python scripts/encode.py --tokenizer runs/large/vq16 --config configs/decoder/b.py \
        --out runs/large/codes
    python scripts/train.py --config configs/decoder/b.py --workdir runs/large/b

Hardware (configs/large.py): v5p-256 and v6e-256 run it as it is, 64 H100s with

    --config.loop.mesh={'data':-1,'fsdp':8}

Schedule: AdamW at 4e-4, 2,000 steps of warm-up, then a cosine to a tenth, 100,000 steps in all.
Expected tokens: 104.9 billion codes, 1024 pages of 1024 a step, beside 128 places for
letters a page.

Parameters: 126,171,649. 110,119,680 of them are LlamaGen-B's trunk, codes in, norm and
codes out; the others tell it the blueprint. LlamaGen-B itself, 110,888,448 with its table
of 1001 classes (111M by its README), is this with

    --config.model.num_classes=1000

HBM per chip (preflight): 5.2 GB of 102 on v5p:4x4x8, MFU at most .890.
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    return large.decoder(
        large.llamagen(width=768, num_layers=12, num_heads=12),
        batch_size=1024,
        loop=large.loop(num_steps=100_000, learning_rate=4e-4, mesh=large.MESH),
    )
