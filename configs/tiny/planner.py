"""The smallest planner run that is one: for tests.

python scripts/train.py --config configs/tiny/planner.py --workdir runs/tiny/planner

Hardware: one CPU core, seconds. Expected: a loss that falls.
"""

from ml_collections import ConfigDict

from configs.demo import planner as demo


def get_config() -> ConfigDict:
    """The demo's config, small."""
    config = demo.get_config()
    config.model.blocks.update(width=16, num_layers=2, head_size=8, hidden=32)
    config.data.update(num_evaluation_pages=2, num_pages=32)
    config.loop.checkpoint.every_steps = 2
    config.loop.update(num_steps=6, log_every_steps=1)
    return config
