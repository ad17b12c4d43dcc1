"""How many programs the steps of a run are compiled into, and where they are kept."""

import functools
import logging
from pathlib import Path

import keras

from kzoo.files import keras_home

_log = logging.getLogger("kzoo")
CACHE_BYTES = 2**32  # of kept programs, of which the ones longest unused go


class Programs:
    """Counts how often each kind of step of a model is made into a program: by TensorFlow's tracing, or by JAX.

    Batches of one shape need one program for training, and validation one more where its last batch is smaller. Each
    further one is time lost to compiling.

    Args:
        model: compiled model, before its `fit`.
        replicas: number of devices for each of which TensorFlow traces a step anew.
    """

    def __init__(self, model: keras.Model, replicas: int = 1):
        self._traced, self._replicas = {"training": 0, "validation": 0}, replicas
        model.train_step = self._counted(model.train_step, "training")
        model.test_step = self._counted(model.test_step, "validation")

    @property
    def training(self) -> int:
        """Number of programs of the training step so far."""
        return -(-self._traced["training"] // self._replicas)

    @property
    def validation(self) -> int:
        """Number of programs of the validation step so far."""
        return -(-self._traced["validation"] // self._replicas)

    def warn(self) -> None:
        """Tells of more programs than batches of two shapes need."""
        for phase, count, needed in (("training", self.training, 1), ("validation", self.validation, 2)):
            if count > needed:
                _log.warning(f"the {phase} step was compiled {count} times instead of {needed}: its batches differ")

    def _counted(self, step, phase: str):
        """A step that runs in Python only while a program is made of it."""

        @functools.wraps(step)
        def counted(*args, **kwargs):
            self._traced[phase] += 1
            return step(*args, **kwargs)

        return counted


def keep_programs() -> Path | None:
    """Has JAX keep the programs of an accelerator on the disk, so that the next run need not compile them again.

    A user's own `JAX_COMPILATION_CACHE_DIR` stays. Those of a processor are not kept: they hold instructions that
    another one may lack.

    Returns:
        Where they are; None where none are kept.
    """
    if keras.backend.backend() != "jax":
        return None
    import jax

    if jax.default_backend() == "cpu":
        return None
    own: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - as its types do not know it
    if own is not None:
        return Path(own)
    place = keras_home() / "programs"
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    return place
