"""Calls a program of this folder; needs jax and nothing else. `python run.py encode page.npy`
prints what `encode` gives; from Python, `load(folder, "encode")(pixels)`."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export


def load(folder, name):
    """A function of arrays, as contract.json lists them under `inputs`; any number of pages."""
    folder = Path(folder)
    said = json.loads((folder / "contract.json").read_text())["programs"][name]
    program = export.deserialize((folder / said["file"]).read_bytes())
    weights = {m: dict(np.load(folder / f"{m}.npz")) for m in said["models"]}
    call = jax.jit(program.call)
    return lambda *arrays: np.asarray(call(weights, *arrays))


if __name__ == "__main__":
    name, *files = sys.argv[1:]
    print(load(Path(__file__).parent, name)(*map(np.load, files)))
