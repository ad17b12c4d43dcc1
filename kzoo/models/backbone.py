"""Feature maps of any classification network of the zoo, for the models that predict densely on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import keras

from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.models.slots import check_attention
from kzoo.registry import CLASSIFICATION, Entry, configure, lookup
from kzoo.taps import TAP


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Options that models on a backbone share.

    Attributes:
        backbone: a classification network of `kzoo.list_models()`; its layers have the names that they have alone.
        backbone_options: overrides of the backbone's config, such as `dict(widths=(16, 32, 64, 128))`. Trunks that can
            normalise their taps (Swin, NAT) do so unless `normalise_taps=False` is among them.
        levels: taps of the backbone to use, such as `("p2", "p3", "p4", "p5")`, finest first; None for the usual ones.
        attention: of the encoder's blocks. With a backbone it replaces the backbone's own `attention`; None leaves it.

    Raises:
        UnknownNameError: no such backbone.
        UnknownOptionError: an option that the backbone does not have.
        InvalidValueError: a backbone that is no classification network, or a value that a field cannot take.
    """

    backbone: str | None = None
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[str, ...] | None = None
    attention: str | Callable | None = None

    def __post_init__(self):
        check_attention(self.attention)
        if self.levels is not None:
            numbers = [level_of(name) for name in self.levels] if isinstance(self.levels, (tuple, list)) else []
            if not numbers or numbers != sorted({number for number in numbers if number is not None}):
                raise InvalidValueError(
                    f"levels={self.levels!r} must be a tuple of taps, finest first, such as ('p2', 'p3', 'p4', 'p5')"
                )
        if not isinstance(self.backbone_options, Mapping):
            raise InvalidValueError(
                f"backbone_options={self.backbone_options!r} must be a dict of the backbone's options"
            )
        if self.backbone is not None:
            self.backbone_entry  # noqa: B018  raises what is wrong with it now
        elif self.backbone_options:
            raise InvalidValueError(f"backbone_options={self.backbone_options!r} need a backbone; give its name too")

    @cached_property
    def backbone_entry(self) -> Entry | None:
        """The backbone with its options."""
        if self.backbone is None:
            return None
        entry = lookup(self.backbone)
        if entry.task != CLASSIFICATION:
            raise InvalidValueError(f"backbone={self.backbone!r} is itself a model on a backbone; use a classifier")
        options = dict(self.backbone_options)
        if self.attention is not None:
            options["attention"] = self.attention
        if any(each.name == "normalise_taps" for each in fields(entry.config)):
            options.setdefault("normalise_taps", True)
        return replace(entry, config=configure(entry, options))

    @property
    def trunk(self) -> Entry:
        """The backbone with its options, of a model that must have one.

        Raises:
            InvalidValueError: there is none.
        """
        if self.backbone_entry is None:
            raise InvalidValueError("backbone=None has no maps; name a classification network, such as 'resnet50'")
        return self.backbone_entry

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the backbone's last map, along one axis."""
        return self.trunk.config.total_stride

    @property
    def smallest_input(self) -> int:
        """The least height and width of an image."""
        config = self.trunk.config
        return getattr(config, "smallest_input", config.total_stride)


def level_of(name: Any) -> int | None:
    """5 for `"p5"`; None for what is no tap's name."""
    return int(name[1:]) if isinstance(name, str) and TAP.fullmatch(name) else None


def backbone_maps(x, config: BackboneConfig) -> dict[int, Any]:
    """Runs the backbone on normalised images; level -> map, finest first."""
    entry = config.trunk
    maps = entry.features(x, entry.config)
    return {level: each for name, each in maps.items() if (level := level_of(name)) is not None}


def choose_levels(maps: Mapping[int, Any], config: BackboneConfig, usual: range | None = None) -> dict[int, Any]:
    """The maps that `config.levels` names; without it those of the `usual` levels, or all if these are one or none.

    Raises:
        UnknownNameError: the backbone lacks a tap.
    """
    if config.levels is None:
        chosen = {level: each for level, each in maps.items() if usual and level in usual}
        return chosen if len(chosen) > 1 else dict(maps)
    chosen = {}
    for name in config.levels:
        level = level_of(name)
        if level is None or level not in maps:
            has = ", ".join(f"p{level}" for level in maps)
            raise UnknownNameError(f"{config.backbone} has no tap {name!r}; it has {has}: choose levels among them")
        chosen[level] = maps[level]
    return chosen


def backbone(model: keras.Model, name: str) -> keras.Model:
    """The backbone inside a model, as a model of its own that shares its weights.

    Its outputs are the backbone's taps. As its layers have the names that they have in the backbone alone, it loads
    the same files.

    Args:
        model: built on the backbone, such as a U-Net or an FPN.
        name: of the backbone.

    Returns:
        A `keras.Model` called `name` from the same input to a dict of taps.

    Raises:
        UnknownNameError: no such model in the zoo.
        InvalidValueError: the model has no taps.

    Example:
        >>> model = kzoo.build("unet", backbone="resnet50", num_classes=11)
        >>> kzoo.load_weights(kzoo.backbone(model, "resnet50"), "resnet50.safetensors")
    """
    lookup(name)
    taps = {layer.name: layer.output for layer in model.layers if TAP.fullmatch(layer.name)}
    if not taps:
        raise InvalidValueError(f"{model.name} has no taps, so it has no backbone of the zoo")
    return keras.Model(model.input, taps, name=name)
