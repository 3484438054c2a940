"""Prompt -> blueprint -> codes -> pixels -> proof: the only library package that imports all three
models.

`run` makes a training run of a config, `load_model` a model of a training run, `load` a press of
three models: of runs, or of an exported bundle.
"""

from pipeline.bundle import Bundle, encoding, load
from pipeline.printing import decoder_press
from pipeline.runs import Run, run
from pipeline.tasks import (
    decoder_task,
    load_model,
    planner_task,
    recogniser_task,
    token_contract,
    tokenizer_task,
)

__all__ = [
    "Bundle", "Run", "decoder_press", "decoder_task", "encoding", "load", "load_model",
    "planner_task", "recogniser_task", "run", "token_contract", "tokenizer_task",
]  # fmt: skip
