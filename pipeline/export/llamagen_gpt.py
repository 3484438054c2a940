"""LlamaGen's GPT as its paper and published weights have it (Sun et al. 2024), in torch: what
exports are compared with, since the library is no package. Names of arguments and tensors are its.

Written anew, for one purpose: whole sequences, no cache, no dropout. What only its weights need is
kept as it is: cosines and sines of zero for class and caption (its issue 54).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.export.llamagen_args import ModelArgs, shapes


def random_state(args: ModelArgs, seed: int) -> dict[str, Tensor]:
    """Weights at random, of a size at which attention, gates and logits are far from flat."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes(args).items():
        scale = 0.2 if len(shape) == 1 else shape[1] ** -0.5
        drawn = torch.randn(shape, generator=generator) * scale
        state[name] = drawn + 1 if len(shape) == 1 else drawn
    return state


def rotary_table(args: ModelArgs) -> Tensor:
    """[cls_token_num + block_size, pairs, 2] cosines and sines: zeros before the codes, then each
    code's row in the first half of the pairs and its column in the second, counted from 0."""
    pairs = args.dim // args.n_head // 4
    side = round(args.block_size**0.5)
    frequencies = args.rope_base ** (-torch.arange(pairs, dtype=torch.float32) / pairs)
    row, column = (torch.arange(args.block_size) // side, torch.arange(args.block_size) % side)
    angles = torch.cat([n[:, None] * frequencies for n in (row, column)], dim=1)
    codes = torch.stack([angles.cos(), angles.sin()], dim=-1)
    return torch.cat([torch.zeros(args.cls_token_num, 2 * pairs, 2), codes])


def _turned(x: Tensor, table: Tensor) -> Tensor:
    """Neighbours (2p, 2p + 1) of each head [B T N H] turned by the angles of each position."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    turn = torch.view_as_complex(table)[None, :, None]
    return torch.view_as_real(pairs * turn).flatten(3).to(x.dtype)


class Reference:
    """A GPT by its arguments and its state dict, to be asked for logits and greedy codes."""

    def __init__(self, args: ModelArgs, state: Mapping[str, Tensor]) -> None:
        self.args, self.state = args, {n: x.float() for n, x in state.items()}

    @torch.no_grad()
    def logits(self, codes: Tensor, condition: Tensor, there: Tensor | None = None) -> Tensor:
        """[B T + 1 V], for the codes [B T] so far and the one after them. `condition` is the class
        [B] or the caption's features [B S I], of which `there` [B S] are (on the right)."""
        args, state = self.args, self.state
        prefix = self._prefix(condition)
        x = torch.cat([prefix, state["tok_embeddings.weight"][codes]], dim=1)
        length = x.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril().expand(len(x), -1, -1).clone()
        if there is not None:
            seen[:, :, : prefix.shape[1]] &= there.bool()[:, None]
            seen |= torch.eye(length, dtype=torch.bool)
        table = rotary_table(args)[:length]
        for i in range(args.n_layer):
            layer = {
                n.split(".", 2)[2]: w for n, w in state.items() if n.startswith(f"layers.{i}.")
            }
            x = x + self._attention(
                self._norm(x, layer["attention_norm.weight"]), layer, table, seen
            )
            y = self._norm(x, layer["ffn_norm.weight"])
            gate = functional.silu(y @ layer["feed_forward.w1.weight"].T)
            x = (
                x
                + (gate * (y @ layer["feed_forward.w3.weight"].T))
                @ layer["feed_forward.w2.weight"].T
            )
        x = self._norm(x, state["norm.weight"])[:, prefix.shape[1] - 1 :]
        return x @ state["output.weight"].T

    def nothing(self, condition: Tensor) -> Tensor:
        """The condition of as many rows that are told nothing, for guidance."""
        if self.args.model_type == "c2i":
            return torch.full_like(condition, self.args.num_classes)
        return self.state["cls_embedding.uncond_embedding"].expand_as(condition)

    def greedy(
        self, condition: Tensor, there: Tensor | None, num_codes: int, *, cfg_scale: float = 1.0
    ) -> Tensor:
        """The likeliest codes [B num_codes], one after another, under classifier-free guidance past
        a scale of 1; a caption that is not told has as many places."""
        codes = torch.zeros(len(condition), 0, dtype=torch.long)
        for _ in range(num_codes):
            logits = self.logits(codes, condition, there)[:, -1]
            if cfg_scale > 1:
                untold = self.logits(codes, self.nothing(condition), there)[:, -1]
                logits = untold + (logits - untold) * cfg_scale
            codes = torch.cat([codes, logits.argmax(-1, keepdim=True)], dim=1)
        return codes

    def _prefix(self, condition: Tensor) -> Tensor:
        state = self.state
        if self.args.model_type == "c2i":
            return state["cls_embedding.embedding_table.weight"][condition][:, None]
        hidden = condition.float() @ state["cls_embedding.cap_proj.fc1.weight"].T
        return (
            functional.gelu(hidden, approximate="tanh")
            @ state["cls_embedding.cap_proj.fc2.weight"].T
        )

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.args.norm_eps) * weight

    def _attention(
        self, x: Tensor, layer: Mapping[str, Any], table: Tensor, seen: Tensor
    ) -> Tensor:
        args = self.args
        size, kv = args.dim // args.n_head, args.n_kv_head or args.n_head
        together = x @ layer["attention.wqkv.weight"].T
        query, key, value = (
            part.unflatten(-1, (-1, size))
            for part in together.split([args.dim, kv * size, kv * size], dim=-1)
        )
        query, key = _turned(query, table), _turned(key, table)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        key, value = (part.repeat_interleave(args.n_head // kv, dim=1) for part in (key, value))
        scores = query @ key.transpose(2, 3) * size**-0.5
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        found = scores.softmax(-1) @ value
        return found.transpose(1, 2).flatten(2) @ layer["attention.wo.weight"].T
