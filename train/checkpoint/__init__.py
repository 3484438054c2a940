"""Checkpoints: saved in the background, whole or not at all, checked when they are read."""

from train.checkpoint.manifest import About, CheckpointError, DamageError, complete, differences
from train.checkpoint.opening import newest, opened, verify
from train.checkpoint.retention import CheckpointConfig, pinned
from train.checkpoint.saving import Checkpoints
from train.checkpoint.transfer import load_partly
from train.checkpoint.weights import fingerprint, load_weights

steps = complete

__all__ = [
    "About", "CheckpointConfig", "CheckpointError", "Checkpoints", "DamageError", "differences",
    "fingerprint", "load_partly", "load_weights", "newest", "opened", "pinned", "steps", "verify",
]  # fmt: skip
