"""The optimizer of a recipe, with its schedule."""

import dataclasses
from typing import Any

import keras
from keras import ops
from keras.optimizers import schedules

from kzoo.models.depths import depth_of_layers
from kzoo.recipe import Recipe, Schedule
from kzoo.train.decay import without_decay
from kzoo.train.muon import Muon

KINDS: dict[str, tuple[type[keras.optimizers.Optimizer], dict[str, Any]]] = {
    "sgd": (keras.optimizers.SGD, dict(momentum=0.9, nesterov=True)),
    "adamw": (keras.optimizers.AdamW, {}),
    "lamb": (keras.optimizers.Lamb, {}),
    "muon": (Muon, dict(exclude_layers=["head"])),
    "rmsprop": (keras.optimizers.RMSprop, dict(rho=0.9, momentum=0.9, epsilon=1.0)),
}


def make_optimizer(
    recipe: Recipe, model: keras.Model, steps: int, epochs: int | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe, with weight decay on kernels alone.

    Args:
        recipe: the recipe.
        model: the model that it trains.
        steps: number of batches in an epoch.
        epochs: number of epochs that it is used for; default: all.
    """
    settings, (kind, own) = recipe.optimizer, KINDS[recipe.optimizer.name]
    schedule = dataclasses.replace(recipe.schedule, epochs=epochs or recipe.schedule.epochs, freeze_epochs=0)
    options: dict[str, Any] = own | dict(
        learning_rate=learning_rate(schedule, settings.learning_rate, steps),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        gradient_accumulation_steps=settings.accumulate if settings.accumulate > 1 else None,
    )
    if settings.ema is not None:
        options |= dict(use_ema=True, ema_momentum=settings.ema)
    if settings.name == "muon":
        options["adam_weight_decay"] = settings.weight_decay
    if settings.layer_decay < 1:
        optimizer = LAYERWISE[kind.__name__](factors=factors_of(model, settings.layer_decay), **options)
    else:
        optimizer = kind(**options)
    optimizer.exclude_from_weight_decay(var_list=without_decay(model))
    # wrapped here and not by compile, so that a checkpoint gives the same optimizer back whatever the global policy
    return keras.optimizers.LossScaleOptimizer(optimizer) if recipe.precision == "mixed_float16" else optimizer


def factors_of(model: keras.Model, decay: float) -> dict[str, float]:
    """Path of each weight -> its share of the learning rate: 1 for the head, and `decay` times less for each block."""
    depths = depth_of_layers(model)
    last = max(depths.values())
    return {
        weight.path: decay ** (last - depths[layer.name])
        for layer in model.layers
        if layer.name in depths
        for weight in layer.trainable_weights
    }


def _layerwise(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """The optimizer with a learning rate for each weight; its weight decay is in proportion."""

    def factor(self, variable) -> float:  # the backend's own variables have no path
        return self.factors.get(self._trainable_variables[self._get_variable_index(variable)].path, 1.0)

    def __init__(self, factors: dict[str, float], **options):
        kind.__init__(self, **options)
        self.factors = factors

    def update_step(self, gradient, variable, learning_rate):
        kind.update_step(self, gradient, variable, learning_rate * factor(self, variable))

    def _apply_weight_decay(self, variables):
        for variable in variables if self.weight_decay else ():
            if self._use_weight_decay(variable):
                rate = self.learning_rate * factor(self, variable)
                variable.assign(variable - variable * ops.cast(self.weight_decay * rate, variable.dtype))

    def get_config(self):
        return kind.get_config(self) | {"factors": self.factors}

    methods = [__init__, update_step, _apply_weight_decay, get_config]
    made = type(f"Layerwise{kind.__name__}", (kind,), {method.__name__: method for method in methods})
    return keras.saving.register_keras_serializable("kzoo")(made)


LAYERWISE = {kind.__name__: _layerwise(kind) for kind, _ in KINDS.values()}


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
        rates = [peak * schedule.step_factor**number for number in range(len(ends) + 1)]
        after = schedules.PiecewiseConstantDecay(ends, rates)
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
