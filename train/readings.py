"""A step's scalars in one array: what a loop asks a device for each step comes in one piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Readings(Mapping[str, Array]):
    """Scalars by name, float32."""

    array: Float[Array, " n"]
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, scalars: Mapping[str, Array]) -> Readings:
        """Those of a dict, in a program."""
        return cls(jnp.stack([jnp.float32(x) for x in scalars.values()]), tuple(scalars))

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        return self.array[self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def copy_to_host_async(self) -> None:
        """Begin to bring them to the host."""
        self.array.copy_to_host_async()

    def read(self) -> dict[str, float]:
        """Their values, once the device has them."""
        return dict(zip(self.names, np.asarray(self.array).tolist(), strict=True))
