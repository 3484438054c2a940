"""Others of the same shape and random weights: a PyTorch loop with a static cache of our own, eager
and compiled, and transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.export.torch_files import foreign
from scripts.bench import torch_side
from scripts.bench.generation import Shape
from scripts.bench.torch_gpt import gpt


def _model(shape: Shape, batch: int) -> Any:
    """The step: the vectors of both halves of a guided batch to the code chosen for each row, and
    the vectors of these codes."""
    torch = foreign("torch")
    F, k = torch.nn.functional, min(shape.top_k, shape.codebook_size)

    class Model(gpt(shape, rows=2 * batch)):
        def forward(self, x: Any, at: Any) -> Any:
            turn, seen = (self.cos[at], self.sin[at]), (self.places <= at)[None, None, None]
            for layer in self.layers:
                x = layer(x, turn, at, seen)
            told, untold = self.head(self.norm(x))[:, 0].float().chunk(2)
            logits = untold + shape.guidance * (told - untold)
            floor = torch.topk(logits, k).values[:, -1:]
            share = F.softmax(torch.where(logits < floor, -torch.inf, logits), dim=-1)
            # the largest of p / e is a draw: multinomial would leave the graph
            chosen = (share / torch.empty_like(share).exponential_(1)).argmax(-1)
            return chosen, self.codes(torch.cat([chosen, chosen]))[:, None]

    return Model().eval()


def torch_loop(
    shape: Shape, batch: int, *, compiled: bool, dtype: str = "float32"
) -> Callable[[], Any]:
    """Prints pages by a step of all layers over a static cache, guided in one doubled batch; under
    `torch.compile` as one graph if `compiled`."""
    torch = foreign("torch")
    torch.manual_seed(0)
    place = torch_side.device()
    with torch.device(place):
        model = _model(shape, batch).to(getattr(torch, dtype))
        told = torch.cat([torch.arange(batch), torch.full((batch,), 1000)])
        places = [torch.tensor([t]) for t in range(shape.num_codes)]
    step = torch_side.compiled(model) if compiled else model

    def run() -> Any:
        printed = []
        with torch.no_grad():
            x = model.classes(told)[:, None]
            for at in places:
                if compiled:  # the graph's memory is written anew
                    torch.compiler.cudagraph_mark_step_begin()
                chosen, x = (part.clone() for part in step(x, at))
                printed.append(chosen)
        return torch.stack(printed, 1).cpu()

    return run


def transformers_generate(shape: Shape, batch: int, *, dtype: str = "float32") -> Callable[[], Any]:
    """`LlamaForCausalLM.generate` with a static cache and its own compiling of the step, which it
    leaves off on a CPU unless told, over twice the rows (its own guidance asks a batch of one row
    at a time, so the combining is left out)."""
    torch, library = foreign("torch"), foreign("transformers")
    config = library.LlamaConfig(
        vocab_size=shape.codebook_size, hidden_size=shape.width, intermediate_size=shape.hidden,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.num_codes + 1, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    place = torch_side.device()
    with torch.device(place):
        model = library.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
        prompt = torch.ones((2 * batch, 1), dtype=torch.long)
    compiling = library.generation.CompileConfig(
        mode="reduce-overhead" if place == "cuda" else "default"
    )
    compiling._compile_all_devices = True
    how = {
        "attention_mask": prompt, "max_new_tokens": shape.num_codes, "do_sample": True,
        "min_new_tokens": shape.num_codes, "top_k": min(shape.top_k, shape.codebook_size),
        "cache_implementation": "static", "compile_config": compiling,
    }  # fmt: skip

    def run() -> Any:
        with torch.no_grad():
            return model.generate(prompt, **how).cpu()

    return run
