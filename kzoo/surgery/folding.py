"""Plans what scales and shifts channels in a model and the models inside it, and folds it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from kzoo.surgery.affine import Affine, to_numpy
from kzoo.surgery.level import Level, Refused
from kzoo.surgery.linear import LINEAR, constant_channel, folded_weights, with_folds
from kzoo.surgery.plan import Folder, FoldPlan
from kzoo.surgery.rewrite import Edits, Replacement, rewrite
from kzoo.surgery.same_outputs import unless_changed

_log = logging.getLogger("kzoo")


@dataclass(frozen=True)
class Rule:
    """Which layers fold, and how.

    Attributes:
        read, norms: as in `Folder`.
        constant: as in `constant_channel`; about as much as the values of the map, so that one scale fits all channels
            of an integer map.
        marks: names of layers that leave an `Identity` of that name when they fold, because others look for it.
    """

    read: Callable[[Level, str], Affine | None]
    norms: bool
    constant: float
    marks: tuple[str, ...] = ()


def plan_rule(level: Level, rule: Rule) -> FoldPlan:
    """What `rule` does to a model and the models inside it."""
    return _plan(level, lambda level: Folder(level, rule.read, rule.norms).plan)


def fold(model: keras.Model, rule: Rule) -> keras.Model:
    """A copy of the model in which `rule` has been applied; logs what stays and why.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.
    """
    level = Level(model)
    _log_kept(level, plan_rule(level, rule))
    return unless_changed(level, rewrite(level, lambda level: _edits(level, rule)))


def plan_replacing(level: Level, choose: Callable[[Level, str], Replacement | None]) -> FoldPlan:
    """What `replace` does to a model and the models inside it."""
    return _plan(level, lambda level: _choose(level, choose)[0])


def replace(model: keras.Model, choose: Callable[[Level, str], Replacement | None]) -> keras.Model:
    """A copy of the model with other layers in the place of some; logs what stays and why.

    Args:
        model: a functional or Sequential model.
        choose: function that gives what takes the place of the named layer, None to let it be, and raises `Refused` if
            nothing can.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.
    """
    level = Level(model)
    _log_kept(level, plan_replacing(level, choose))
    return unless_changed(level, rewrite(level, lambda level: _choose(level, choose)[1]))


def _plan(level: Level, plan_level: Callable[[Level], FoldPlan]) -> FoldPlan:
    result = plan_level(level)
    for name, inner in level.models():
        result.add(name, _plan(inner, plan_level))
    return result


def _log_kept(level: Level, plan: FoldPlan) -> None:
    for name, reason in plan.kept.items():
        _log.warning("%s: %s stays: %s", level.model.name, name, reason)


def _choose(level: Level, choose: Callable[[Level, str], Replacement | None]) -> tuple[FoldPlan, Edits]:
    result, edits = FoldPlan(), {}
    for name in level.graph.calls:
        try:
            replacement = choose(level, name)
        except Refused as reason:
            result.kept[name] = str(reason)
            continue
        if replacement is not None:
            edits[name] = replacement
            result.folds[name] = name
    return result, edits


def _edits(level: Level, rule: Rule) -> Edits:
    folder = Folder(level, rule.read, rule.norms)
    layers = level.operations
    edits: Edits = {name: [] for name in folder.plan.folds}
    for name in folder.plan.inside:
        edits[name] = [layers[name].folded()]
    for name in folder.before.keys() | folder.after.keys():
        edits[name] = [_fold_into(layers[name], folder, name, rule.constant)]
    for name, into in folder.constants.items():
        channels = len(folder.before[into].scale)
        edits[name] = [constant_channel(layers[into], channels, rule.constant, level.new_name(f"{name}_constant"))]
    for name, affine in folder.merged.items():
        edits[name] = [_merge(layers[name], affine)]
    for name in folder.plan.folds.keys() & set(rule.marks):
        edits[name].append((keras.layers.Identity(name=name), []))
    return edits


def _fold_into(layer, folder: Folder, name: str, constant: float):
    if type(layer) not in LINEAR:
        return layer.absorb(folder.after[name].scale, folder.after[name].offset)
    before, after = folder.before.get(name), folder.after.get(name)
    padded = name in folder.constants.values()
    return with_folds(layer, folded_weights(layer, before, after, constant if padded else None))


def _merge(norm: keras.layers.BatchNormalization, affine: Affine) -> tuple[keras.layers.Layer, list[np.ndarray]]:
    """A batch normalisation with the statistics of `norm` that computes `affine`."""
    config = {**norm.get_config(), "scale": True, "center": True}
    mean, variance = to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)
    gamma = affine.scale * np.sqrt(variance + norm.epsilon)
    return type(norm).from_config(config), [gamma, affine.offset + mean * affine.scale, mean, variance]
