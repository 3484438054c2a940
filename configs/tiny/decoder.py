"""The smallest decoder run that is one: for tests.

    python scripts/encode.py --tokenizer runs/tiny/tokenizer --out runs/tiny/codes --num-pages 16
    python scripts/train.py --config configs/tiny/decoder.py --workdir runs/tiny/decoder

Hardware: one CPU core, seconds. Expected: a loss that falls.
"""

from ml_collections import ConfigDict

from configs.demo import decoder as demo


def get_config() -> ConfigDict:
    """The demo's config, small."""
    config = demo.get_config()
    config.model.blocks.update(width=16, num_layers=2, num_kv_heads=4, head_size=8, hidden=32)
    config.model.num_codes = 12
    config.data.update(
        num_evaluation_pages=2,
        num_pages=16,
        codes=("runs/tiny/codes",),
        tokenizer="runs/tiny/tokenizer",
    )
    config.loop.checkpoint.every_steps = 2
    config.loop.update(num_steps=6, log_every_steps=1)
    return config
