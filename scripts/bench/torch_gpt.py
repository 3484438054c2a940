"""LlamaGen's shape in PyTorch, written here: what the peers that generate and that train share."""

from __future__ import annotations

from typing import Any

from pipeline.export.torch_files import foreign
from scripts.bench.generation import Shape


def _block(shape: Shape, rows: int) -> Any:
    """A causal layer, with a static cache of its own for so many rows if there are some."""
    torch = foreign("torch")
    nn, F = torch.nn, torch.nn.functional
    D, N = shape.width, shape.num_heads

    def rotated(x: Any, turn: tuple[Any, Any]) -> Any:
        first, second = x.chunk(2, dim=-1)
        cos, sin = turn
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
            self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
            self.up, self.gate = (nn.Linear(D, shape.hidden, bias=False) for _ in range(2))
            self.down = nn.Linear(shape.hidden, D, bias=False)
            for name in ("keys", "values") if rows else ():
                self.register_buffer(name, torch.zeros(rows, N, shape.num_codes, D // N))

        def look(self, query: Any, key: Any, value: Any, at: Any, seen: Any) -> Any:
            if not rows:
                return F.scaled_dot_product_attention(query, key, value, is_causal=True)
            self.keys.index_copy_(2, at, key)
            self.values.index_copy_(2, at, value)
            return F.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=seen)

        def forward(self, x: Any, turn: Any, at: Any = None, seen: Any = None) -> Any:
            B, T, _ = x.shape
            query, key, value = self.qkv(self.first(x)).view(B, T, 3, N, -1).unbind(2)
            query, key = (rotated(part, turn).to(value.dtype) for part in (query, key))
            heads = (part.transpose(1, 2) for part in (query, key, value))
            found = self.look(*heads, at, seen)
            x = x + self.out(found.transpose(1, 2).reshape(B, T, D))
            normal = self.second(x)
            return x + self.down(F.silu(self.gate(normal)) * self.up(normal))

    return Block()


def gpt(shape: Shape, *, rows: int = 0) -> Any:
    """The class of a model of that shape, whose `forward` its heirs write: tables, layers (see
    `_block` for `rows`), norm, head, and the rotations `cos` and `sin` [T 1 P]."""
    torch = foreign("torch")
    nn = torch.nn
    D, N, T, V = shape.width, shape.num_heads, shape.num_codes, shape.codebook_size

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codes, self.classes = nn.Embedding(V, D), nn.Embedding(1001, D)
            self.layers = nn.ModuleList(_block(shape, rows) for _ in range(shape.num_layers))
            self.norm, self.head = nn.RMSNorm(D, eps=1e-5), nn.Linear(D, V, bias=False)
            angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D // N // 2) * 2 * N / D)
            self.register_buffer("cos", angles.cos()[:, None])
            self.register_buffer("sin", angles.sin()[:, None])
            self.register_buffer("places", torch.arange(T))

    return Gpt
