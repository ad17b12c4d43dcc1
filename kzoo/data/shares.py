"""The share of a batch that each device has, under JAX with a `keras.distribution` in force."""

from typing import Any

import keras
import numpy as np

from kzoo.data.split import Example


class Shares:
    """How batches lie on the devices of a distribution: each has as many rows, the next ones of the batch.

    Processes need not talk about it: a share follows from the number of rows. Where the devices do not divide them, as
    with the last batch of an evaluation, all devices have all rows.

    Args:
        distribution: of the batch over devices, perhaps of several processes.

    Example:
        >>> shares = Shares(keras.distribution.DataParallel())
        >>> images = shares.put({"image": pixels[shares.rows(len(pixels))]}, len(pixels))["image"]
    """

    def __init__(self, distribution: keras.distribution.DataParallel):
        self._mesh, self._axis = distribution.device_mesh.backend_mesh, distribution.batch_dim_name

    def sharding(self, count: int):
        """The `jax.sharding.Sharding` of arrays of `count` rows."""
        import jax

        axes = () if count % self._mesh.size else (self._axis,)
        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(*axes))

    def rows(self, count: int) -> np.ndarray:
        """The numbers of the rows, of `count`, that devices of this process have."""
        parts = self.sharding(count).addressable_devices_indices_map((count,)).values()
        return np.concatenate([np.arange(*bounds) for bounds in sorted({part[0].indices(count) for part in parts})])

    def put(self, examples: Example, count: int) -> dict[str, Any]:
        """Arrays of all `count` rows on all devices, from those that this process has."""
        import jax

        return {
            name: jax.make_array_from_process_local_data(self.sharding(count), array, (count, *array.shape[1:]))
            for name, array in examples.items()
        }


def shares_in_force() -> Shares | None:
    """Those of the distribution that `keras.distribution` has in force; None where there is none."""
    distribution = keras.distribution.distribution()
    return None if distribution is None else Shares(distribution)
