"""The smallest tokenizer run that is one: for tests.

python scripts/train.py --config configs/tiny/tokenizer.py --workdir runs/tiny/tokenizer

Hardware: one CPU core, seconds. Expected: a loss that falls.
"""

from ml_collections import ConfigDict

from configs.demo import tokenizer as demo


def get_config() -> ConfigDict:
    """The demo's config, small."""
    config = demo.get_config()
    config.model.backbone.update(width=32, hidden=48)
    config.model.quantizer.num_codes = 12
    config.data.update(num_evaluation_pages=2, num_pages=16)
    config.loop.checkpoint.every_steps = 2
    config.loop.update(num_steps=6, log_every_steps=1, eval_every_steps=0)
    return config
