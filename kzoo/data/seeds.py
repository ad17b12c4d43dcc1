"""What is random in a run, as a function of (seed, epoch, step) and of nothing else.

A run that is killed and goes on therefore sees the same images in the same order, changed in the same way, and drops
the same activations, as one that was never killed; and threads have nothing to race for.
"""

import keras
import numpy as np

# keys that keep the streams of one (seed, epoch) apart
_ORDER, _SHUFFLE, _MODEL, _PARTS = range(4)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch visits its examples.

    Args:
        seed: of the run.
        epoch: counted from zero.
        size: number of examples.

    Returns:
        (size,) int64, a permutation.

    Example:
        >>> epoch_order(0, 3, 5)
        array([2, 0, 1, 4, 3])
    """
    return _generator(seed, epoch).permutation(size)


def balanced_order(seed: int, epoch: int, labels: np.ndarray, count: int) -> np.ndarray:
    """The order in which an epoch visits examples so that each class comes equally often.

    Images of a class come again when all of it were there, in an order of their own each time. Where `count` is no
    multiple of the classes, some of them, others in each epoch, come once more.

    Args:
        seed: of the run.
        epoch: counted from zero.
        labels: class of each example; those that never occur are none.
        count: number of examples to visit.

    Returns:
        (count,) int64, indices of examples.

    Example:
        >>> labels = np.array([0, 0, 0, 1])
        >>> labels[balanced_order(0, 3, labels, 4)]
        array([1, 0, 0, 1])
    """
    rng = _generator(seed, epoch)
    classes = rng.permutation(np.unique(labels))
    chosen = []
    for rank, label in enumerate(classes):
        share = count // len(classes) + (rank < count % len(classes))
        members = np.flatnonzero(labels == label)
        rounds = [rng.permutation(members) for _ in range(share // len(members) + 1)]
        chosen.append(np.concatenate(rounds)[:share])
    return rng.permutation(np.concatenate(chosen))


def shuffle_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's shuffle buffer, for examples that only come as a stream."""
    return int(_sequence(seed, epoch, _SHUFFLE).generate_state(1)[0])


def part_draws(seed: int, epoch: int, count: int) -> np.ndarray:
    """Numbers, int64 (count,), from which the random parts of an epoch's pictures follow, in their order."""
    return np.random.Generator(np.random.Philox(_sequence(seed, epoch, _PARTS))).integers(2**62, size=count)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """What draws the order of an epoch."""
    return np.random.Generator(np.random.Philox(_sequence(seed, epoch, _ORDER)))


def _sequence(seed: int, epoch: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, epoch), spawn_key=key)


class StepSeeds(keras.random.SeedGenerator):
    """Seeds of the draws of one step, one after the other, without a state that parallel calls could mix.

    What takes a `keras.random.SeedGenerator` takes this one. Make it anew for each step, inside the traced function.

    Args:
        seed: of the run; an integer or a scalar tensor of int64.
        epoch: counted from zero; an integer or a scalar tensor.
        step: of the epoch, counted from zero; an integer or a scalar tensor.

    Attributes:
        seed, epoch: as given.

    Example:
        >>> first, second = (keras.random.uniform((), seed=StepSeeds(0, 0, step)) for step in (0, 1))
    """

    def __init__(self, seed, epoch, step):  # the parent's would make the state
        self.seed, self.epoch = seed, epoch
        self._step = _fold_in(_fold_in(_key(seed), epoch), step)
        self._drawn = 0

    def next(self, ordered: bool = True):
        """The next seed, a tensor (2,)."""
        self._drawn += 1
        return _fold_in(self._step, self._drawn)


def _key(seed):
    """What a run's seeds are made from, for the generator of Keras' backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.random.PRNGKey(seed)
    import tensorflow as tf

    return tf.stack([tf.cast(seed, tf.int64), tf.constant(0, tf.int64)])


def _fold_in(key, number):
    """Another key for each number."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.random.fold_in(key, number)
    import tensorflow as tf

    return tf.random.fold_in(key, tf.cast(number, tf.int64), alg="philox")


class EpochSeeds(keras.callbacks.Callback):
    """Sets the seeds of dropout, stochastic depth and the like at the begin of each epoch.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        for number, state in enumerate(random_states(self.model)):
            state.assign([int(_sequence(self.seed, epoch, _MODEL, number).generate_state(1)[0]), 0])


def random_states(model: keras.Model) -> list[keras.Variable]:
    """The variables of a model that hold the states of its random layers.

    Keras lists them among `variables`, and neither among `weights` nor among `metrics_variables`.
    """
    others = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in others]
