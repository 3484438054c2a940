"""The decoder of LlamaGen-3B's shape: 24 layers of 3200 in heads of 100, codes of VQ-16.

    python scripts/encode.py --tokenizer runs/large/vq16 --config configs/decoder/3b.py \
        --out runs/large/codes
    python scripts/train.py --config configs/decoder/3b.py --workdir runs/large/3b

Hardware (configs/large.py): v5p-256 and v6e-256 run it as it is, 64 H100s with

    --config.loop.mesh={'data':-1,'fsdp':8}
    --config.model.remat=full

Schedule: AdamW at 2e-4, 3,000 steps of warm-up, then a cosine to a tenth, 150,000 steps in all.
Expected tokens: 314.6 billion codes, 2048 pages of 1024 a step, beside 128 places for
letters a page.

Parameters: 3,191,468,801. 3,093,456,000 of them are LlamaGen-3B's trunk, codes in, norm and
codes out; the others tell it the blueprint. LlamaGen-3B itself, 3,096,659,200 with its table
of 1001 classes (3.1B by its README), is this with

    --config.model.num_classes=1000

HBM per chip (preflight): 12.2 GB of 102 on v5p:8x8x8, MFU at most .973.
On one H100 (docs/performance.md): MFU .482 at 8 rows, 64 GB held.
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    return large.decoder(
        large.llamagen(width=3200, num_layers=24, num_heads=32),
        batch_size=2048,
        loop=large.loop(num_steps=150_000, learning_rate=2e-4, mesh=large.MESH),
    )
