"""LlamaGen's `vq_model` in PyTorch, written from its tensors' names and shapes: there is no library
to compare with.

A VQGAN of width 128 (Esser et al. 2021) with codes compared at length 1 (Yu et al. 2021). Pixels
are float32 in [-1, 1], [B C Y X]. Needs the extra `interop`: only `pipeline/export/
llamagen_tokenizer.py` imports this, when it compares.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 128
NUM_BLOCKS = 2
NUM_GROUPS = 32


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, width, eps=1e-6)


def _conv(num_in: int, num_out: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, padding=1)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is linear where the width changes."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(num_in), _conv(num_in, num_out)
        self.norm2, self.conv2 = _norm(num_out), _conv(num_out, num_out)
        if num_in != num_out:
            self.nin_shortcut = nn.Conv2d(num_in, num_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        update = self.conv1(functional.silu(self.norm1(x)))
        update = self.conv2(functional.silu(self.norm2(update)))
        return update + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all positions, as wide as the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(self.norm(x)).flatten(2) for part in (self.q, self.k, self.v))
        scores = torch.einsum("bcq,bck->bqk", query, key) / x.shape[1] ** 0.5
        mixed = torch.einsum("bqk,bck->bcq", scores.softmax(dim=-1), value)
        return x + self.proj_out(mixed.reshape(x.shape))


class Halving(nn.Module):
    """Stride 2, a row and a column of zeros past the bottom right edge."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Each position four times, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class Level(nn.Module):
    """Blocks of one resolution, each with attention behind it if the level `attends`."""

    def __init__(self, chain: Sequence[int], *, attends: bool) -> None:
        super().__init__()
        self.res = nn.ModuleList(Residual(*pair) for pair in itertools.pairwise(chain))
        self.attn = nn.ModuleList(Attention(width) for width in chain[1:] if attends)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            x = self.attn[i](x) if len(self.attn) else x
        for resize in ("downsample", "upsample"):
            x = getattr(self, resize)(x) if hasattr(self, resize) else x
        return x


def _middle(width: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(width, width), Attention(width), Residual(width, width)])


class Half(nn.Module):
    """Encoder or decoder: `num_in` channels to `num_out` through the levels in the order given."""

    def __init__(self, num_in: int, widths: Sequence[int], num_out: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv_in = _conv(num_in, WIDTH if down else widths[0])
        self.conv_blocks = nn.ModuleList()
        before = (WIDTH if down else widths[0], *widths)
        for i, (first, width) in enumerate(zip(before, widths, strict=False)):
            count = NUM_BLOCKS if down else NUM_BLOCKS + 1
            lowest = i == (len(widths) - 1 if down else 0)
            level = Level((first, *(width,) * count), attends=lowest)
            if down and i < len(widths) - 1:
                level.downsample = Halving(width)
            if not down and i < len(widths) - 1:
                level.upsample = Doubling(width)
            self.conv_blocks.append(level)
        self.mid = _middle(widths[-1] if down else widths[0])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], num_out)

    def forward(self, x: Tensor) -> Tensor:
        parts = [*self.conv_blocks, *self.mid] if self.down else [*self.mid, *self.conv_blocks]
        x = self.conv_in(x)
        for part in parts:
            x = part(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class Codebook(nn.Module):
    """The table, and the last 65536 codes of training, which nothing reads."""

    codebook_used: Tensor

    def __init__(self, size: int, width: int, *, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.embedding = nn.Embedding(size, width)
        self.register_buffer("codebook_used", torch.zeros(65536))

    def rows(self) -> Tensor:
        """The vectors as they are used."""
        weight = self.embedding.weight
        return functional.normalize(weight, dim=-1) if self.unit else weight

    def nearest(self, z: Tensor) -> Tensor:
        """Codes [B y x] of latents [B Z y x]."""
        z = z.permute(0, 2, 3, 1)
        z = functional.normalize(z, dim=-1) if self.unit else z
        rows = self.rows()
        apart = z.square().sum(-1, keepdim=True) + rows.square().sum(-1) - 2 * z @ rows.T
        return apart.argmin(dim=-1)


class VQModel(nn.Module):
    """The tokenizer, with the tensors' names of LlamaGen."""

    def __init__(self, multipliers: Sequence[int], latent: int, codebook: Codebook) -> None:
        super().__init__()
        widths = [WIDTH * times for times in multipliers]
        code = codebook.embedding.embedding_dim
        self.encoder = Half(3, widths, latent, down=True)
        self.decoder = Half(latent, widths[::-1], 3, down=False)
        self.quantize = codebook
        self.quant_conv = nn.Conv2d(latent, code, 1)
        self.post_quant_conv = nn.Conv2d(code, latent, 1)

    def latents(self, pixels: Tensor) -> Tensor:
        """[B Z y x], before codes are taken."""
        return self.quant_conv(self.encoder(pixels))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pixels of codes [B y x]."""
        values = self.quantize.rows()[codes].permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(values))
