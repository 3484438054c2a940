"""The smallest recogniser run that is one: for tests.

python scripts/train.py --config configs/tiny/recogniser.py --workdir runs/tiny/recogniser

Hardware: one CPU core, seconds. Expected: a loss that falls.
"""

from ml_collections import ConfigDict

from configs.demo import recogniser as demo


def get_config() -> ConfigDict:
    """The demo's config, small."""
    config = demo.get_config()
    config.model.update(height_px=16, width_px=108, width=16, hidden=32, num_blocks=1)
    config.data.update(num_evaluation_pages=2, num_pages=16)
    config.loop.checkpoint.every_steps = 2
    config.loop.update(num_steps=6, log_every_steps=1, eval_every_steps=0)
    return config
