"""Vector quantization: a position's vector becomes the nearest row of a table (van den Oord et al.
2017, arXiv 1711.00937, equations 1 to 3).

    k = argmin_v |z - e_v|,   values = e_k,
    loss = mean (sg(z) - e_k)^2 + beta mean (z - sg(e_k))^2

with sg = stop_gradient. Means over channels stand where the paper sums, as in its successors; beta
weighs the commitment (taming-transformers' default weighs the other term, its `legacy` defect).

*Cosine* (Yu et al. 2021, ViT-VQGAN, arXiv 2110.04627, section 3): z and e_v are used at length 1,
and few channels (`width` 8) keep the codes in use.

*EMA* (van den Oord et al., appendix A.1): N_v and m_v are averages over batches, of decay g, of the
count of code v and of the sum of its vectors, and e_v = m_v / N_v. We store e_v and the share u_v =
N_v / positions, for which the same averages read

    u' = g u + (1 - g) c,   e' = e + (1 - g) (S - c e) / u'

(c, S: the batch's share and sum). An unused code stays where it is, and as the bias 1 - g^t of a
zero start divides out of m / N, there is no correction to make; nor do we smooth N (Laplace, in the
authors' code), which draws rare codes to the origin. The loss keeps its second term only.

*Start*: k-means over the first training batch. *Restart*: a code whose average share falls under
`restart_below` / V becomes a random vector of the batch (Dhariwal et al. 2020, Jukebox, arXiv
2005.00341, section 3.1), its share 1 / V again. A learnt row is `table` + `shift`: the optimizer
owns the parameter, and a start or restart sets the statistic beside it (Adam's moments of that row
stay). An average of weights that the loop keeps holds `table`, not the statistics.

*Rotation trick* (Fifty et al. 2024, arXiv 2410.06424, section 4): values = sg((|e| / |z|) R) z,
where R rotates z onto e; the gradient keeps its angle to the vector instead of its direction.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.axes import constrain
from tokenizer.quantizers.codebook import CodebookConfig, drawn, gathered, kmeans, nearest
from tokenizer.quantizers.contract import Quantized, Statistic, straight_through, unit


def rotated(z: Float[Array, "*B Z"], e: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
    """`e`, as z turned and scaled by constants: (|e| / |z|) (z - 2 (r z) r + 2 (z^ z) e^) for r =
    unit(z^ + e^) (Fifty et al. 2024)."""
    length = lambda x: jnp.sqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-12)  # noqa: E731
    dot = lambda a, b: (a * b).sum(axis=-1, keepdims=True)  # noqa: E731
    from_, to = jax.lax.stop_gradient((unit(z), unit(e)))
    r = unit(from_ + to)
    scale = jax.lax.stop_gradient(length(e) / length(z))
    turned = scale * (z - 2 * dot(r, z) * r + 2 * dot(from_, z) * to)
    return turned + jax.lax.stop_gradient(e - turned)  # exact, where z and e are opposite too


class VQ(nnx.Module):
    """One code a position; see the file's head for what each field of the config does."""

    def __init__(self, config: CodebookConfig, *, rngs: nnx.Rngs) -> None:
        V, Z = config.size, config.width
        self.config = config
        self.num_codes = 1
        self.codebook_size = V
        self.width = Z
        rows = jax.random.normal(rngs.params(), (V, Z))
        rows = unit(rows) if config.cosine else rows
        if config.learning == "gradient":
            self.table = nnx.Param(rows, axes="VZ", summed="Z")
            self.shift = Statistic(jnp.zeros((V, Z)))
        else:
            self.mean = Statistic(rows)
        self.share = Statistic(jnp.full((V,), 1 / V, jnp.float32))
        self.started = Statistic(jnp.zeros((), bool))

    def _rows(self) -> Float[Array, "V Z"]:
        """The table before it is normalised, whole on every device (see `Embed`)."""
        if self.config.learning == "ema":
            return self.mean[...]
        return constrain(self.table[...], "__") + self.shift[...]

    def _codes(self) -> Float[Array, "V Z"]:
        return unit(self._rows()) if self.config.cosine else self._rows()

    def _replace(self, where: Bool[Array, " V"], rows: Float[Array, "V Z"]) -> None:
        """Let the table's rows be `rows` there; the others keep their bits."""
        if self.config.learning == "ema":
            self.mean[...] = jnp.where(where[:, None], rows, self.mean[...])
        else:
            table = jax.lax.stop_gradient(constrain(self.table[...], "__"))
            self.shift[...] = jnp.where(where[:, None], rows - table, self.shift[...])

    def _start(self, z: Float[Array, "B y x Z"], key: Array) -> None:
        """Before the first training batch is coded, and never again."""
        size, started = self.codebook_size, self.started[...]
        make = lambda: kmeans(key, z, size, cosine=self.config.cosine)  # noqa: E731
        rows = jax.lax.cond(started, lambda: jnp.zeros((size, self.width)), make)
        self._replace(jnp.broadcast_to(~started, (size,)), rows)
        self.started[...] = jnp.ones((), bool)

    def _gather(
        self, z: Float[Array, "B y x Z"], codes: Int[Array, "B y x"], key: Array
    ) -> Float[Array, ""]:
        """Move the statistics by a batch; returns how many codes restarted."""
        config = self.config
        share, sums = gathered(z, codes, self.codebook_size)
        average = config.decay * self.share[...] + (1 - config.decay) * share
        if config.learning == "ema":
            pull = (1 - config.decay) * (sums - share[:, None] * self.mean[...])
            self.mean[...] = self.mean[...] + pull / jnp.maximum(average, 1e-12)[:, None]
        dead = average < config.restart_below / self.codebook_size
        self.share[...] = jnp.where(dead, 1 / self.codebook_size, average)
        rows = jnp.zeros((self.codebook_size, self.width))
        draw = lambda: drawn(key, z, self.codebook_size)  # noqa: E731
        self._replace(dead, jax.lax.cond(dead.any(), draw, lambda: rows))
        return dead.sum().astype(jnp.float32)

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """The nearest codes; with a `key` the table starts, follows and restarts by this batch
        (its values are those before the batch moved it)."""
        config, z = self.config, z.astype(jnp.float32)
        z = unit(z) if config.cosine else z
        fixed = jax.lax.stop_gradient(z)
        if key is not None:
            self._start(fixed, jax.random.fold_in(key, 0))
        table = self._codes()
        codes = nearest(fixed, jax.lax.stop_gradient(table))
        chosen = table[codes]
        target = jax.lax.stop_gradient(chosen)
        commitment = jnp.square(z - target).mean()
        loss = config.commitment * commitment
        scalars = {"commitment": commitment}
        if config.learning == "gradient":
            loss = loss + jnp.square(fixed - chosen).mean()
        if key is not None:
            scalars["restarted"] = self._gather(fixed, codes, jax.random.fold_in(key, 1))
        values = rotated(z, target) if config.rotation else straight_through(z, target)
        return Quantized(values, codes[..., None], loss, scalars)

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """Rows of the table, at length 1 under `cosine`."""
        return self._codes()[codes[..., 0]]
