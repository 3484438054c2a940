"""The decoder of LlamaGen-XL's shape: 36 layers of 1280, codes of VQ-16.

    python scripts/encode.py --tokenizer runs/large/vq16 --config configs/decoder/xl.py \
        --out runs/large/codes
    python scripts/train.py --config configs/decoder/xl.py --workdir runs/large/xl

Hardware (configs/large.py): v5p-256 and v6e-256 run it as it is, 64 H100s with

    --config.loop.mesh={'data':-1,'fsdp':8}

Schedule: AdamW at 3e-4, 4,000 steps of warm-up, then a cosine to a tenth, 200,000 steps in all.
Expected tokens: 209.7 billion codes, 1024 pages of 1024 a step, beside 128 places for
letters a page.

Parameters: 802,792,961. 773,418,240 of them are LlamaGen-XL's trunk, codes in, norm and
codes out; the others tell it the blueprint. LlamaGen-XL itself, 774,699,520 with its table
of 1001 classes (775M by its README), is this with

    --config.model.num_classes=1000

HBM per chip (preflight): 16.1 GB of 102 on v5p:4x4x8, MFU at most .939.
On one H100 (docs/performance.md): MFU .444 at 32 rows, 58 GB held.
Expected word accuracy: not measured yet.
"""

from ml_collections import ConfigDict

from configs import large


def get_config() -> ConfigDict:
    """Every value of the run."""
    return large.decoder(
        large.llamagen(width=1280, num_layers=36, num_heads=20),
        batch_size=1024,
        loop=large.loop(num_steps=200_000, learning_rate=3e-4, mesh=large.MESH),
    )
