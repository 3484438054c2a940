"""The same models in PyTorch, written here, and their training step: AdamW (fused), gradients
clipped, parameters float32 and products under autocast where ours compute in bfloat16."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.export.torch_files import foreign
from scripts.bench import torch_side
from scripts.bench.generation import Shape
from scripts.bench.torch_gpt import gpt
from scripts.bench.training import B1, B2, CLIP, DECAY, RATE, Rival
from tokenizer.model import TokenizerConfig

DROPPED = 0.1  # share of the classes that a decoder is not told


def decoder(shape: Shape) -> Any:
    """(codes [B T], classes [B]) to the mean loss of a code."""
    torch = foreign("torch")

    class Model(gpt(shape)):
        def forward(self, codes: Any, classes: Any) -> Any:
            gone = torch.rand(classes.shape, device=classes.device) < DROPPED
            start = self.classes(torch.where(gone, 1000, classes))[:, None]
            x = torch.cat([start, self.codes(codes[:, :-1])], dim=1)
            for layer in self.layers:
                x = layer(x, (self.cos, self.sin))
            logits = self.head(self.norm(x)).float()
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten())

    return Model()


def _residual(num_in: int, num_out: int, num_groups: int) -> Any:
    torch = foreign("torch")
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.update = nn.Sequential(
                nn.GroupNorm(num_groups, num_in), nn.SiLU(),
                nn.Conv2d(num_in, num_out, 3, padding=1),
                nn.GroupNorm(num_groups, num_out), nn.SiLU(),
                nn.Conv2d(num_out, num_out, 3, padding=1),
            )  # fmt: skip
            same = num_in == num_out
            self.shortcut = nn.Identity() if same else nn.Conv2d(num_in, num_out, 1)

        def forward(self, x: Any) -> Any:
            return self.shortcut(x) + self.update(x)

    return Residual()


def _attention(num_channels: int, num_groups: int) -> Any:
    """All positions to all, one head."""
    torch = foreign("torch")
    nn, F = torch.nn, torch.nn.functional

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(num_groups, num_channels)
            self.query, self.key, self.value, self.out = (
                nn.Conv2d(num_channels, num_channels, 1) for _ in range(4)
            )

        def forward(self, x: Any) -> Any:
            normal = self.norm(x)
            flat = (part(normal).flatten(2).transpose(1, 2)[:, None]
                    for part in (self.query, self.key, self.value))  # fmt: skip
            found = F.scaled_dot_product_attention(*flat)[:, 0].transpose(1, 2)
            return x + self.out(found.reshape(x.shape))

    return Attention()


def _halves(config: TokenizerConfig) -> tuple[Any, Any]:
    """Encoder and decoder of VQGAN in the sizes of our convolutional backbone."""
    nn, backbone = foreign("torch").nn, config.backbone
    own, widths, Z = backbone.conv, backbone.level_widths, config.quantizer.codebook.width
    num_groups, last = own.num_groups, len(widths) - 1

    def level(number: int, chain: Sequence[int]) -> list[Any]:
        parts = []
        for before, after in itertools.pairwise(chain):
            parts.append(_residual(before, after, num_groups))
            parts += [_attention(after, num_groups)] if own.attends(number) else []
        return parts

    def middle(width: int) -> list[Any]:
        looks = [_attention(width, num_groups)] if own.middle_attention else []
        return [_residual(width, width, num_groups), *looks, _residual(width, width, num_groups)]

    down: list[Any] = [nn.Conv2d(backbone.channels, widths[0], 3, padding=1)]
    up: list[Any] = [nn.Conv2d(Z, own.latent, 1), nn.Conv2d(own.latent, widths[-1], 3, padding=1)]
    up += middle(widths[-1])
    for i, width in enumerate(widths):
        down += level(i, (widths[max(i - 1, 0)], *(width,) * backbone.num_blocks))
        if i < last:
            down += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)]
    for i, width in reversed(list(enumerate(widths))):
        up += level(i, (widths[min(i + 1, last)], *(width,) * (backbone.num_blocks + 1)))
        if i:
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
    down += [*middle(widths[-1]), nn.GroupNorm(num_groups, widths[-1]), nn.SiLU()]
    down += [nn.Conv2d(widths[-1], own.latent, 3, padding=1), nn.Conv2d(own.latent, Z, 1)]
    up += [nn.GroupNorm(num_groups, widths[0]), nn.SiLU()]
    up += [nn.Conv2d(widths[0], backbone.channels, 3, padding=1)]
    return nn.Sequential(*down), nn.Sequential(*up)


def tokenizer(config: TokenizerConfig) -> Any:
    """uint8 pixels [B Y X C] to the loss: L1, and the terms of a cosine codebook that learns by
    gradient. What ours counts of its codes beside that (their use, restarts) is left out."""
    torch = foreign("torch")
    nn, F, codebook = torch.nn, torch.nn.functional, config.quantizer.codebook

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = _halves(config)
            self.table = nn.Parameter(torch.randn(codebook.size, codebook.width))

        def forward(self, pixels: Any) -> Any:
            wanted = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            z = F.normalize(self.encoder(wanted).float(), dim=1)
            table = F.normalize(self.table, dim=1)
            with torch.no_grad():
                codes = (z.permute(0, 2, 3, 1) @ table.T).argmax(-1)
            chosen = table[codes].permute(0, 3, 1, 2)
            painted = self.decoder(z + (chosen - z).detach()).float()
            pull = F.mse_loss(z, chosen.detach())
            learnt = F.mse_loss(chosen, z.detach())
            return F.l1_loss(painted, wanted) + codebook.commitment * pull + learnt

    return Model().to(memory_format=torch.channels_last)


def rival(
    model: Any, batch: Mapping[str, np.ndarray], *, compiled: bool, dtype: str = "float32"
) -> Rival:
    """A PyTorch model's step over one batch again and again; its arguments are the batch's arrays
    (codes in raster order)."""
    torch = foreign("torch")
    place = torch_side.device()
    model = model.to(place).train()
    arrays = [x.reshape(len(x), -1).astype(np.int64) if name == "codes" else x
              for name, x in batch.items()]  # fmt: skip
    given = [torch.from_numpy(x.astype(np.int64) if x.ndim == 1 else x).to(place) for x in arrays]
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(params, lr=RATE, betas=(B1, B2), weight_decay=DECAY, fused=True)
    loss_of = torch_side.compiled(model, graphs=False) if compiled else model
    narrow = torch.autocast(place, torch.bfloat16, enabled=dtype == "bfloat16")

    def run() -> float:
        with narrow:
            loss = loss_of(*given)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch_side.wait()
        return float(loss.detach())

    return Rival(run, sum(p.numel() for p in params))
