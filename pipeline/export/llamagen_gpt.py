"""LlamaGen's GPT as its paper and published weights have it (Sun et al. 2024), in torch: what
exports are compared with, since the library is no package. Names of arguments and tensors are its.

Written anew, for one purpose: logits and greedy codes, no dropout. What only its weights need is
kept as it is: cosines and sines of zero for class and caption (its issue 54).
"""

from __future__ import annotations

from collections.abc import Mapping

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


Past = list[tuple[Tensor, Tensor]]
"""Keys and values [B S K H] of each layer."""


class Reference:
    """A GPT by its arguments and its state dict, to be asked for logits and greedy codes."""

    def __init__(self, args: ModelArgs, state: Mapping[str, Tensor]) -> None:
        self.args, self.state = args, {n: x.float() for n, x in state.items()}

    @torch.no_grad()
    def logits(self, codes: Tensor, condition: Tensor, there: Tensor | None = None) -> Tensor:
        """[B T + 1 V], for the codes [B T] so far and the one after them. `condition` is the class
        [B] or the caption's features [B S I], of which `there` [B S] are (on the right)."""
        return self._read(codes, condition, there, self._blank())

    def _blank(self) -> Past:
        return [(torch.empty(0), torch.empty(0)) for _ in range(self.args.n_layer)]

    def _read(
        self, codes: Tensor, condition: Tensor | None, there: Tensor | None, past: Past
    ) -> Tensor:
        """Logits after each code, and after the condition if it is given: it comes first. `past`
        has keys and values of what was read before, and gets those of this."""
        state, start = self.state, past[0][0].shape[1] if past[0][0].numel() else 0
        x, first = state["tok_embeddings.weight"][codes], 0
        if condition is not None:
            prefix = self._prefix(condition)
            x, first = torch.cat([prefix, x], dim=1), prefix.shape[1] - 1
        end = start + x.shape[1]
        seen = torch.ones(end, end, dtype=torch.bool).tril().expand(len(x), -1, -1).clone()
        if there is not None:
            seen[:, :, : there.shape[1]] &= there.bool()[:, None]
            seen |= torch.eye(end, dtype=torch.bool)
        turn = rotary_table(self.args)[start:end], seen[:, start:]
        for i in range(self.args.n_layer):
            layer = f"layers.{i}."
            y = self._norm(x, state[f"{layer}attention_norm.weight"])
            update, past[i] = self._attention(y, f"{layer}attention.", turn, past[i])
            x = x + update
            y = self._norm(x, state[f"{layer}ffn_norm.weight"])
            gate, up, down = (state[f"{layer}feed_forward.w{n}.weight"].T for n in (1, 3, 2))
            x = x + (functional.silu(y @ gate) * (y @ up)) @ down
        return self._norm(x[:, first:], state["norm.weight"]) @ state["output.weight"].T

    def nothing(self, condition: Tensor) -> Tensor:
        """The condition of as many rows that are told nothing, for guidance."""
        if self.args.model_type == "c2i":
            return torch.full_like(condition, self.args.num_classes)
        return self.state["cls_embedding.uncond_embedding"].expand_as(condition)

    @torch.no_grad()
    def greedy(
        self, condition: Tensor, there: Tensor | None, num_codes: int, *, cfg_scale: float = 1.0
    ) -> Tensor:
        """The likeliest codes [B num_codes], one after another, under classifier-free guidance past
        a scale of 1; a caption that is not told has as many places."""
        conditions = [condition] + ([self.nothing(condition)] if cfg_scale > 1 else [])
        pasts = [self._blank() for _ in conditions]
        codes = torch.zeros(len(condition), 0, dtype=torch.long)
        for t in range(num_codes):
            told, *untold = (
                self._read(codes[:, -1:], None if t else first, there, past)[:, -1]
                for first, past in zip(conditions, pasts, strict=True)
            )
            logits = untold[0] + (told - untold[0]) * cfg_scale if untold else told
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
        self, x: Tensor, name: str, turn: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        args, (table, seen) = self.args, turn
        size, kv = args.dim // args.n_head, args.n_kv_head or args.n_head
        together = x @ self.state[f"{name}wqkv.weight"].T
        query, key, value = (
            part.unflatten(-1, (-1, size))
            for part in together.split([args.dim, kv * size, kv * size], dim=-1)
        )
        query, key = _turned(query, table), _turned(key, table)
        if past[0].numel():
            key, value = (torch.cat(pair, dim=1) for pair in zip(past, (key, value), strict=True))
        keys, values = (part.repeat_interleave(args.n_head // kv, dim=2) for part in (key, value))
        scores = torch.einsum("bqnh,bknh->bnqk", query, keys) * size**-0.5
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        found = torch.einsum("bnqk,bknh->bqnh", scores.softmax(-1), values)
        return found.flatten(2) @ self.state[f"{name}wo.weight"].T, (key, value)
