"""The optimizer of a recipe, with its schedule."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules

from kzoo.recipe import Recipe, Schedule
from kzoo.train.decay import without_decay

_FACTORIES: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": lambda **options: keras.optimizers.SGD(momentum=0.9, nesterov=True, **options),
    "adamw": keras.optimizers.AdamW,
    "lamb": keras.optimizers.Lamb,
    "muon": lambda **options: keras.optimizers.Muon(adam_weight_decay=options["weight_decay"], **options),
}


def make_optimizer(recipe: Recipe, model: keras.Model, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe, with weight decay on kernels alone.

    Args:
        recipe: the recipe.
        model: the model that it trains.
        steps: number of batches in an epoch.
    """
    settings = recipe.optimizer
    options: dict[str, Any] = dict(
        learning_rate=learning_rate(recipe.schedule, settings.learning_rate, steps),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        gradient_accumulation_steps=settings.accumulate if settings.accumulate > 1 else None,
    )
    if settings.ema is not None:
        options |= dict(use_ema=True, ema_momentum=settings.ema)
    optimizer = _FACTORIES[settings.name](**options)
    optimizer.exclude_from_weight_decay(var_list=without_decay(model))
    # wrapped here and not by compile, so that a checkpoint gives the same optimizer back whatever the global policy
    return keras.optimizers.LossScaleOptimizer(optimizer) if recipe.precision == "mixed_float16" else optimizer


def learning_rate(schedule: Schedule, peak: float, steps: int) -> schedules.LearningRateSchedule:
    """The learning rate of each batch: a line from zero to `peak`, and from there as the schedule says.

    Args:
        schedule: the schedule.
        peak: learning rate at the end of the warm-up.
        steps: number of batches in an epoch.

    Example:
        >>> float(learning_rate(Schedule(epochs=10, warmup_epochs=2), peak=0.4, steps=10)(10))
        0.2
    """
    warmup = round(schedule.warmup_epochs * steps)
    rest = max(1, schedule.epochs * steps - warmup)
    if schedule.decay == "cosine":
        return schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=rest,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    after: schedules.LearningRateSchedule
    if schedule.decay in ("linear", "constant"):
        after = schedules.PolynomialDecay(peak, rest, end_learning_rate=0.0 if schedule.decay == "linear" else peak)
    else:
        ends = [epoch * steps - 1 for epoch in schedule.step_epochs]  # the last batch of each
        after = schedules.PiecewiseConstantDecay(ends, [peak / 10**number for number in range(len(ends) + 1)])
    return WarmUp(after, peak, warmup, shifted=schedule.decay == "linear")


@keras.saving.register_keras_serializable("kzoo")
class WarmUp(schedules.LearningRateSchedule):
    """A line from zero to a peak, then another schedule.

    Args:
        after: schedule that follows.
        peak: learning rate at the end of the line.
        steps: number of batches of the line.
        shifted: whether `after` counts its batches from the end of the line, not from the first of all.
    """

    def __init__(self, after: schedules.LearningRateSchedule, peak: float, steps: int, shifted: bool):
        super().__init__()
        self.after = after
        self.peak = peak
        self.steps = steps
        self.shifted = shifted

    def __call__(self, step):
        step = ops.cast(step, "float32")
        later = self.after(step - self.steps if self.shifted else step)
        return ops.where(step < self.steps, self.peak * step / max(self.steps, 1), later)

    def get_config(self) -> dict[str, Any]:
        after = keras.saving.serialize_keras_object(self.after)
        return {"after": after, "peak": self.peak, "steps": self.steps, "shifted": self.shifted}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(**config | {"after": keras.saving.deserialize_keras_object(config["after"])})
