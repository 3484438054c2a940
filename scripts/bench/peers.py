"""Others of the same shape and random weights: a PyTorch loop with a static cache of our own, eager
and compiled, and transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.export.torch_files import foreign
from scripts.bench import torch_side
from scripts.bench.generation import Shape


def _layer(shape: Shape, rows: int) -> Any:
    """One block over a static cache of its own."""
    torch = foreign("torch")
    nn, F = torch.nn, torch.nn.functional
    D, N, T = shape.width, shape.num_heads, shape.num_codes

    def rotated(x: Any, turn: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        cos, sin = turn
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
            self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
            self.up, self.gate = (nn.Linear(D, shape.hidden, bias=False) for _ in range(2))
            self.down = nn.Linear(shape.hidden, D, bias=False)
            for name in ("keys", "values"):
                self.register_buffer(name, torch.zeros(rows, N, T, D // N))

        def forward(self, x: Any, at: Any, turn: Any, seen: Any) -> Any:
            query, key, value = self.qkv(self.first(x)).view(rows, 1, 3, N, -1).unbind(2)
            query, key = (rotated(part, turn) for part in (query, key))
            self.keys.index_copy_(2, at, key.transpose(1, 2))
            self.values.index_copy_(2, at, value.transpose(1, 2))
            found = F.scaled_dot_product_attention(
                query.transpose(1, 2), self.keys, self.values, attn_mask=seen
            )
            x = x + self.out(found.transpose(1, 2).reshape(rows, 1, D))
            normal = self.second(x)
            return x + self.down(F.silu(self.gate(normal)) * self.up(normal))

    return Layer()


def _model(shape: Shape, batch: int) -> Any:
    """The step: the vectors of both halves of a guided batch to the code chosen for each row, and
    the vectors of these codes."""
    torch = foreign("torch")
    nn, F = torch.nn, torch.nn.functional
    D, N, T, V = shape.width, shape.num_heads, shape.num_codes, shape.codebook_size

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codes, self.classes = nn.Embedding(V, D), nn.Embedding(1001, D)
            layers = (_layer(shape, 2 * batch) for _ in range(shape.num_layers))
            self.layers = nn.ModuleList(layers)
            self.norm, self.head = nn.RMSNorm(D, eps=1e-5), nn.Linear(D, V, bias=False)
            angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D // N // 2) * 2 * N / D)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())
            self.register_buffer("places", torch.arange(T))

        def forward(self, x: Any, at: Any) -> Any:
            turn = self.cos[at][None, :, None], self.sin[at][None, :, None]
            seen = (self.places <= at)[None, None, None]
            for layer in self.layers:
                x = layer(x, at, turn, seen)
            told, untold = self.head(self.norm(x))[:, 0].float().chunk(2)
            logits = untold + shape.guidance * (told - untold)
            floor = torch.topk(logits, min(shape.top_k, V)).values[:, -1:]
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
