"""The tokenizer's critic: a patch discriminator and the game it plays, in one backward pass.

Both players descend in one step without alternation. The critic's loss sees the reconstruction with
its gradient stopped. What the picture should change to look real is worked out beside, as a
gradient over pixels with the critic's parameters held, and is then injected at the reconstruction,
from where the one backward pass carries it on. The adaptive weight needs that gradient anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.axes import constrain
from layers.conv import Conv, GroupNorm, Window
from tokenizer.backbones import PixelDecoder

Scalar = Float[Array, ""]
Pixels = Float[Array, "B Y X C"]


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """`weight` 0 means no critic, at no cost; before `start_step` the players do not move.

    `loss` is hinge or nonsaturating. `adaptive` scales the weight by the ratio of gradient norms at
    the decoder's last layer. `lecam` weighs the LeCam term (.001 to .05 in use), whose anchors
    forget by `lecam_decay`. The network has `num_layers` halvings from `width` channels; `norm` is
    group or none.
    """

    weight: float = 0.0
    start_step: int = 0
    loss: str = "hinge"
    adaptive: bool = True
    lecam: float = 0.0
    lecam_decay: float = 0.99
    width: int = 64
    num_layers: int = 3
    norm: str = "group"
    num_groups: int = 32

    def __post_init__(self) -> None:
        for field, choices in (("loss", tuple(_LOSSES)), ("norm", ("group", "none"))):
            if (given := getattr(self, field)) not in choices:
                raise ValueError(
                    f"critic.{field} {given!r} is not known; there are: {', '.join(choices)}"
                )
        if self.weight < 0 or self.num_layers < 1:
            raise ValueError(
                f"critic.weight {self.weight} must be 0 (off) or more and critic.num_layers "
                f"{self.num_layers} 1 or more"
            )


def _hinge(real: Array, fake: Array) -> Scalar:
    return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean())


def _nonsaturating(real: Array, fake: Array) -> Scalar:
    return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


# The critic's loss of logits (real, fake), and the painter's of its own: Lim & Ye 2017;
# Goodfellow et al. 2014, section 3.
_LOSSES: Mapping[str, tuple[Callable[[Array, Array], Scalar], Callable[[Array], Scalar]]] = {
    "hinge": (_hinge, lambda fake: -fake.mean()),
    "nonsaturating": (_nonsaturating, lambda fake: jax.nn.softplus(-fake).mean()),
}


class Steps(nnx.Variable):
    """How many steps a loss has counted; saved with the model, moved by no gradient, and but once
    in a step of several microbatches."""


class Anchor(nnx.Variable):
    """A moving average of the critic's mean logit."""


class Critic(nnx.Module):
    """PatchGAN (Isola et al. 2017, section 6.1.2): one logit for each patch of the page, of 70 px
    with three layers.

    Convolutions of 4 x 4 px, `num_layers` of them with stride 2, channels doubling up to eight
    times the width; leaky ReLU of slope 0.2. Where we differ: GroupNorm (or none) instead of batch
    norm, so that pages of one batch, and devices, do not see each other (its statistics do reach
    over the whole page); kernels start by their fan-in, not at .02.
    """

    def __init__(self, config: CriticConfig, channels: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        normed = config.norm == "group"
        halving, plain = Window(4, stride=2, padding=(1, 1)), Window(4, padding=(1, 1))
        self.stem = Conv(channels, config.width, halving, rngs=rngs)
        self.convs, self.norms = nnx.List(), nnx.List()
        before = config.width
        for i in range(1, config.num_layers + 1):
            after = config.width * min(2**i, 8)
            window = halving if i < config.num_layers else plain
            self.convs.append(Conv(before, after, window, rngs=rngs, bias=not normed))
            if normed:
                self.norms.append(GroupNorm(after, config.num_groups))
            before = after
        self.head = Conv(before, 1, plain, rngs=rngs)
        self.steps = Steps(jnp.zeros((), jnp.int32), once=True)
        self.real = Anchor(jnp.zeros(()))
        self.fake = Anchor(jnp.zeros(()))

    def __call__(self, pixels: Pixels) -> Float[Array, "B y x"]:
        """Logits, positive for what looks real; raises `ValueError` for a page that is too
        small."""
        if min(pixels.shape[1:3]) < 3 * 2**self.config.num_layers:
            raise ValueError(
                f"a page of {pixels.shape[2]} x {pixels.shape[1]} px is too small for a critic of "
                f"{self.config.num_layers} layers; lower critic.num_layers"
            )
        x = jax.nn.leaky_relu(self.stem(pixels), 0.2)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = jax.nn.leaky_relu(self.norms[i](x) if self.norms else x, 0.2)
            x = constrain(x, "BYXC")
        return self.head(x)[..., 0]


def lecam(real: Array, fake: Array, anchors: tuple[Array, Array]) -> Scalar:
    """relu(real - anchor of fake)^2 + relu(anchor of real - fake)^2, averaged (Tseng et al. 2021;
    the relu is in the authors' code, not in the paper)."""
    reals, fakes = anchors
    over, under = jax.nn.relu(real - fakes), jax.nn.relu(reals - fake)
    return jnp.square(over).mean() + jnp.square(under).mean()


def inject(value: Scalar, pull: Pixels, pixels: Pixels) -> Scalar:
    """`value`, with `pull` for its gradient with respect to the pixels."""
    held = jax.lax.stop_gradient
    return held(value) + (held(pull) * (pixels - held(pixels))).sum()


def last_layer_norms(decoder: PixelDecoder, features: Any, pulls: tuple[Array, ...]) -> list[Array]:
    """For each gradient over pixels, the norm of what it comes to at the kernels of the decoder's
    last layer."""

    def last(path: tuple[Any, ...], _: Any) -> bool:
        return path[0] in decoder.last and path[-1] == "kernel"

    graphdef, kernels, rest = nnx.split(decoder, last, ...)
    kernels, rest, features = jax.lax.stop_gradient((kernels, rest, features))
    paint = lambda kernels: nnx.merge(graphdef, kernels, rest).paint(features)  # noqa: E731
    _, back = jax.vjp(paint, nnx.to_pure_dict(kernels))
    total = lambda pull: sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(back(pull)))  # noqa: E731
    return [jnp.sqrt(total(pull)) for pull in pulls]


def contest(
    model: Any, out: Any, real: Pixels, miss: Callable[[Pixels], Scalar]
) -> tuple[Scalar, dict[str, Scalar]]:
    """What the critic adds to a step's loss: its own loss and the weighted loss of the painter.

    `model` has a `critic` and a `decoder`, `out` the reconstruction's `pixels` and `features`, and
    `miss` is the reconstruction loss of pixels. The adaptive weight is eq. 7 of Esser et al. 2021,
    |d miss / d last layer| / (|d painter's loss / d last layer| + 1e-4), at most 1e4 as in their
    code. Counts the step; from `start_step` on moves the anchors.
    """
    critic = model.critic
    config: CriticConfig = critic.config
    judging, painting = _LOSSES[config.loss]
    held = jax.lax.stop_gradient
    painted = held(out.pixels)
    graphdef, arrays, counts = nnx.split(critic, nnx.Param, ...)
    anchors = critic.real[...], critic.fake[...]

    def logits(arrays: Any, pixels: Pixels) -> Array:
        return nnx.merge(graphdef, arrays, counts)(pixels)

    def play(arrays: Any) -> tuple[Any, ...]:
        true, fake = logits(arrays, real), logits(arrays, painted)
        judged = judging(true, fake) + config.lecam * lecam(true, fake, anchors)
        flattery = lambda pixels: painting(logits(held(arrays), pixels))  # noqa: E731
        fooled, pull = jax.value_and_grad(flattery)(painted)
        weight = jnp.float32(config.weight)
        if config.adaptive:
            pulls = jax.grad(miss)(painted), pull
            ours, theirs = last_layer_norms(model.decoder, out.features, pulls)
            weight = weight * jnp.clip(ours / (theirs + 1e-4), 0.0, 1e4)
        return judged, weight * fooled, weight * pull, weight, (true.mean(), fake.mean())

    def wait(arrays: Any) -> tuple[Any, ...]:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(play, arrays))

    started = critic.steps[...] >= config.start_step
    judged, fooled, pull, weight, means = jax.lax.cond(started, play, wait, arrays)
    critic.steps[...] = critic.steps[...] + 1
    for anchor, mean in zip((critic.real, critic.fake), held(means), strict=True):
        keep = jnp.where(started, config.lecam_decay, 1.0)
        anchor[...] = keep * anchor[...] + (1 - keep) * mean
    scalars = {
        "critic_loss": judged, "painter_loss": fooled, "painter_weight": weight,
        "critic_real": means[0], "critic_fake": means[1],
    }  # fmt: skip
    return judged + inject(fooled, pull, out.pixels), scalars
