"""Take trained weights elsewhere: `python scripts/export.py --bundle RUN --format F --out DIR`.

RUN is a bundle (tokenizer/, planner/ and decoder/) or the run of one model; F is one of

    bundle        the three models as safetensors with hashes and a card: what `pipeline.load` reads
    transformers  planner (and decoder, where it can be one) as Llama or Qwen3 for transformers
    diffusers     convolutional tokenizers as diffusers' VQModel
    llamagen      convolutional tokenizers and class or text decoders with LlamaGen's names
    stablehlo     programs of jax.export for CPUs, CUDA and TPUs, that need only JAX
    onnx          the tokenizer's halves

Averaged weights are taken where they are kept. Every export first proves itself: it is brought back
(the same bytes), run by the other library on the same inputs, and `parity.json` beside it says how
far apart they are. Exits with 1 when that is too far. `--no-parity` only converts, holding one
array at a time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.export import FORMATS, send_out
from pipeline.export.torch_files import add_torch


def main() -> int:
    """Parse the flags, export, say what was found; the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--bundle", type=Path, required=True, help="a bundle, or one model's run")
    flags.add_argument("--format", choices=FORMATS, required=True)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags.add_argument("--no-parity", action="store_true")
    flags.add_argument("--allow-nan", action="store_true", help="of bundle: seal them, and say so")
    flags.add_argument("--pt", action="store_true", help="of llamagen: model.pt for its scripts")
    args = flags.parse_args()
    if args.pt and args.format != "llamagen":
        flags.error("--pt is for --format llamagen, whose own scripts read no safetensors")
    wanted = not args.no_parity
    how = {"dtype": args.dtype, "allow_nan": args.allow_nan, "parity": wanted}
    sent = send_out(args.bundle, args.format, args.out, **how)
    for name, parity in sent.found.items():
        print(f"{args.out / name} {parity}")
        if args.pt:
            print(f"{add_torch(args.out / name)} has the same tensors")
    for name, why in sent.left_out.items():
        print(f"{name} stayed here: {why}")
    if any(parity.found and not parity.ok for parity in sent.found.values()):
        print(f"{args.out} computes something else: do not use it")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
