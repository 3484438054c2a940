"""Index backpropagation quantization: the straight-through estimator on the one-hot index, so that
all codes get gradients (Shi et al. 2024, IBQ, arXiv 2412.02692).

    p = softmax(z . e_v / T),   k = argmax_v p_v,   index = onehot(k) + p - sg(p)
    values = sum_v index_v e_v
    loss = |values - z|^2 + |sg(z) - e_k|^2 + beta |z - sg(e_k)|^2        (double quantization loss)
         + entropy (mean H(p) - H(mean p))

with means over channels. The gradient reaches z through p alone, which is why the first term is
needed: it draws z and e_k together along that path too.

Where we differ: a temperature T (the paper has 1), so that codes of length 1 (`cosine`) have a
softmax that is not flat: near uniform p, d values / d z is about the codes' covariance / T, and T =
1 / width makes it the identity. The entropy terms use the same p (the authors' code sharpens it by
100 there), and beta weighs the commitment (in their code the other term).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers.axes import constrain
from tokenizer.quantizers.codebook import CodebookConfig, affinity
from tokenizer.quantizers.contract import Quantized, unit


class IBQ(nnx.Module):
    """One code a position. There is no state: what no position chooses is still pulled by p."""

    def __init__(self, config: CodebookConfig, *, rngs: nnx.Rngs) -> None:
        V, Z = config.size, config.width
        self.config = config
        self.num_codes = 1
        self.codebook_size = V
        self.width = Z
        rows = jax.random.normal(rngs.params(), (V, Z)) * Z**-0.5
        self.table = nnx.Param(rows, axes="VZ", summed="Z")

    def _codes(self) -> Float[Array, "V Z"]:
        table = constrain(self.table[...], "__")
        return unit(table) if self.config.cosine else table

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """The codes of greatest dot product (under `cosine` the nearest ones); `key` is unused."""
        config, z = self.config, z.astype(jnp.float32)
        z = unit(z) if config.cosine else z
        table = self._codes()
        logits = affinity(z, table) / config.temperature
        codes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        log_p = jax.nn.log_softmax(logits, axis=-1)
        p = jnp.exp(log_p)
        chosen = table[codes]
        # index @ table: its hard part is a lookup, and p - sg(p) is exactly zero going forward
        soft = jnp.einsum("ByxV,VZ->ByxZ", p - jax.lax.stop_gradient(p), _fixed(table))
        values = chosen + soft
        commitment = jnp.square(z - _fixed(chosen)).mean()
        double = jnp.square(_fixed(z) - chosen).mean() + config.commitment * commitment
        loss = jnp.square(values - z).mean() + double
        position = -(p * log_p).sum(axis=-1).mean()
        mean_p = p.mean(axis=(0, 1, 2))
        batch = -(mean_p * jnp.log(mean_p + 1e-12)).sum()
        loss = loss + config.entropy * (position - batch)
        scalars = {"commitment": commitment, "position_entropy": position, "batch_entropy": batch}
        return Quantized(values, codes[..., None], loss, scalars)

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """Rows of the table, at length 1 under `cosine`."""
        return self._codes()[codes[..., 0]]


def _fixed(x: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
    return jax.lax.stop_gradient(x)
