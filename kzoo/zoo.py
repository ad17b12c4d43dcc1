"""Building and describing the models of the zoo."""

import dataclasses
import logging
import math
import numbers
from typing import Any

import keras

from kzoo import models  # noqa: F401  registers every family
from kzoo import weights as weights_room
from kzoo.errors import InvalidValueError, check_choice
from kzoo.fused_batch_norm import use_fused_batch_norm
from kzoo.graph import count_macs
from kzoo.layers import ATTENTION
from kzoo.layers.checks import activation, check_flag
from kzoo.models.blocks import check_classifier, pool, preprocess
from kzoo.models.inception import without_auxiliary
from kzoo.models.slots import plain_of
from kzoo.output import Output
from kzoo.registry import CLASSIFICATION, DETECTION, Entry, configure, lookup
from kzoo.taps import tap_names

_log = logging.getLogger("kzoo")

FOR_TRAINING = {"dropout", "auxiliary_dropout", "drop_path_rate", "initializer"}  # no checkpoint depends on these


def build(
    model: str | None = None,
    /,
    *,
    name: str | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    num_classes: int | None = None,
    weights: str | None = None,
    backbone_weights: str | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = True,
    **overrides: Any,
) -> keras.Model:
    """Builds a model of the zoo as one flat, functional `keras.Model`.

    Args:
        model: a name of `kzoo.list_models()`.
        name: of the Keras model; default: the zoo's. Two models inside one need names of their own. (Alone,
            `name=` is taken for the name of the zoo.)
        input_shape: (height, width, channels); height and width may be None. Default: the model's own.
        num_classes: width of the classifier. Default: that of the checkpoint if it is a known one, else the model's.
        weights: None for random ones, `"imagenet"` or another name that `kzoo.describe` lists,
            `"hf://owner/name"`, or a path. Where `num_classes` is given and differs from the checkpoint's,
            the classifier keeps its random weights. A network with an attention that starts as nothing takes those of
            the same network without it too, see `kzoo.load_weights(new_attention=True)`.
        backbone_weights: the same for the backbone alone of a model that stands on one (`"imagenet"`, ...); the
            decoder keeps its random weights.
        include_top: whether the classifier is there; without it the output is the last feature map, of a feature
            pyramid the dict of its maps.
        pooling: `"avg"` gives features, (batch, channels), of a classifier with `include_top=False`: the mean of its
            last map over all positions, behind the last normalisation and activation. That is what its own head
            reads, except for `vgg*` with `head="dense"` and `simple_cnn`, whose heads read every position.
        classifier_activation: of the classifier; None gives logits. The scores of a detector are sigmoids; None gives
            the raw tensors that its losses take.
        include_preprocessing: whether the first layer normalises RGB pixels of 0 to 255, with the mean and
            deviation of a known checkpoint, or else with the family's. Without it the model eats normalised images.
        **overrides: fields of the family's config, such as `attention="cbam"` or `widths=(8, 16, 32)`.

    Returns:
        A model from RGB images, channels last, to class probabilities: (batch, num_classes), or (batch, height, width,
        num_classes) from a segmentation model; of a detector a dict of boxes and scores. Feature maps are reached with
        `kzoo.pyramid`. Its batch normalisation trains in TensorFlow's fused operation, see
        `kzoo.use_fused_batch_norm`.

    Raises:
        UnknownNameError: no such model; the message lists close matches.
        UnknownOptionError: no such override; the message lists those that exist.
        InvalidValueError: an impossible input shape, number of classes, or override.
        WeightsError: the weights cannot be found or do not fit.

    Example:
        >>> model = kzoo.build("resnet50_cbam", num_classes=10)
        >>> model.predict(images).shape  # uint8 or float pixels, (8, 224, 224, 3)
        (8, 10)
        >>> kzoo.build("unet", backbone="resnet34_cbam", num_classes=11).predict(images).shape
        (8, 224, 224, 11)
    """
    model, name = (name, None) if model is None else (model, name)
    entry = lookup(model)
    config = configure(entry, overrides)
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise InvalidValueError(f"name={name!r} must be text without '/', such as 'left'")
    trunk = getattr(config, "backbone_entry", None) or entry  # whose images the model takes
    check_flag("include_top", include_top)
    check_flag("include_preprocessing", include_preprocessing)
    activation("classifier_activation", classifier_activation)
    input_shape = _check_input_shape(entry, config, input_shape)
    _check_pooling(entry, include_top, pooling)
    source, spec = (None, None) if weights is None else weights_room.resolve(_checkpoints(entry, config), weights)
    if backbone_weights is not None:
        _check_backbone_weights(entry, trunk, weights, backbone_weights)
        source, spec = weights_room.resolve(_checkpoints(trunk, trunk.config), backbone_weights)
    head = "keep" if num_classes is None else "if_fits"
    if num_classes is None:
        num_classes = spec.num_classes if spec and weights is not None else entry.num_classes
    if include_top:
        scores = "sigmoid" if entry.task == DETECTION and classifier_activation is not None else classifier_activation
        num_classes = check_classifier(num_classes, scores)
    if keras.config.image_data_format() != "channels_last":
        raise InvalidValueError(
            "the zoo's models are channels last; call keras.config.set_image_data_format('channels_last') first"
        )
    path = None if source is None else weights_room.fetch_source(source, spec)  # before anything is built

    inputs = keras.Input(input_shape, name="image")
    x = inputs
    if include_preprocessing:
        wanted = spec.preprocessing if spec else path and weights_room.preprocessing_of(trunk.name, path)
        x = preprocess(inputs, wanted or trunk.preprocessing)
    maps = entry.features(x, config)
    outputs = list(maps.values())[-1]
    if include_top:
        outputs = entry.head(maps, num_classes, classifier_activation, config)
    elif pooling:
        outputs = pool(outputs)
    built = use_fused_batch_norm(keras.Model(inputs, outputs, name=name or entry.name))
    if path is not None and backbone_weights is not None:
        _log_new(weights_room.load_backbone(built, trunk, path), source)
    elif path is not None:
        report = weights_room.load_weights(built, path, head=head, new_attention=True)
        if report.initialised:
            _log.warning("%s: the classifier for %d classes is new, with random weights", source, num_classes)
        _log_new(report, source)
    return built


def _log_new(report: weights_room.WeightsReport, source: Any) -> None:
    if report.new:
        _log.warning("%s has no attention: its %d weights are new, and start as nothing", source, len(report.new))


def _checkpoints(entry: Entry, config: Any) -> str:
    """The name whose checkpoints a model takes: of the plain network, where an option has changed the attention."""
    plain = plain_of(entry, config)
    return plain.name if plain and config.attention != entry.config.attention else entry.name


def _check_pooling(entry: Entry, include_top: bool, pooling: Any) -> None:
    check_choice("pooling", pooling, ("avg", None))
    if pooling and include_top:
        raise InvalidValueError(f"pooling={pooling!r} is for a model without its head; give include_top=False too")
    if pooling and entry.task != CLASSIFICATION:
        raise InvalidValueError(f"pooling={pooling!r} is for classifiers; {entry.name} is for {entry.task}")


def _check_backbone_weights(entry: Entry, trunk: Entry, weights: Any, backbone_weights: Any) -> None:
    if trunk is entry:
        advice = "give backbone= too" if hasattr(entry.config, "backbone") else "use weights="
        raise InvalidValueError(f"backbone_weights={backbone_weights!r} is for a model on a backbone; {advice}")
    if weights is not None:
        raise InvalidValueError(
            f"weights={weights!r} are for the whole model and backbone_weights={backbone_weights!r} for a part of it; "
            "give one of them"
        )


def _check_input_shape(entry: Entry, config: Any, shape: Any) -> tuple:
    shape = entry.input_shape if shape is None else shape
    smallest = getattr(config, "smallest_input", config.total_stride)
    problem = None
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        problem = "is not (height, width, channels)"
    elif not _is_positive(shape[2]):
        problem = f"has {shape[2]!r} channels; channels come last and must be a positive integer"
    else:
        for size in shape[:2]:
            if size is not None and not (_is_positive(size) and size >= smallest):
                problem = (
                    f"is too small or no integer: {entry.name} needs at least "
                    f"{smallest}×{smallest} pixels, or None for any size"
                )
    if problem:
        raise InvalidValueError(f"input_shape={shape!r} {problem}; the default is {entry.input_shape}")
    return tuple(shape)


def _is_positive(value: Any) -> bool:
    """Whether `value` is an integer above zero, Python's or NumPy's, and not a truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) > 0


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What `kzoo.describe` tells of a model.

    Attributes:
        name: of the model.
        family: it belongs to.
        input_shape: default (height, width, channels).
        num_classes: default.
        output: what its output means, with the default activation of the classifier.
        trainable_parameters: at the default shape and classes.
        macs: multiply-adds for one image at the default shape.
        taps: shape (height, width, channels) of each feature map.
        weights: names of the public checkpoints that `build(weights=...)` knows and that fit these options.
        starts_from: the network without the attention, whose checkpoints (`kzoo.weights.known`) `build(weights=...)`
            takes too; the attention is then new. None where there is none with public weights.
        papers: arXiv numbers, or authors and year.
        options: the overrides that `build` accepts, with their values for this model.
    """

    name: str
    family: str
    input_shape: tuple[int, int, int]
    num_classes: int
    output: Output
    trainable_parameters: int
    macs: int
    taps: dict[str, tuple[int, int, int]]
    weights: tuple[str, ...]
    starts_from: str | None
    papers: tuple[str, ...]
    options: dict[str, Any]


def describe(name: str, **overrides: Any) -> ModelInfo:
    """Builds a model and reports its size, cost, taps, known weights and papers.

    Args:
        name: a name of `kzoo.list_models()`.
        **overrides: fields of the family's config, as in `build`.

    Raises:
        UnknownNameError: no such model; the message lists close matches.
        UnknownOptionError: an override that is no field of the config.

    Example:
        >>> info = kzoo.describe("resnet50")
        >>> info.trainable_parameters, round(info.macs / 1e9, 3)
        (25557032, 4.089)
        >>> kzoo.describe("resnet50", attention="non_local").trainable_parameters - info.trainable_parameters
        2101760
    """
    entry = lookup(name)
    config = configure(entry, overrides)
    model = build(name, **overrides)
    plain = plain_of(entry, config)
    return ModelInfo(
        name=name,
        family=entry.family,
        input_shape=entry.input_shape,
        num_classes=entry.num_classes,
        output=Output.of_model(without_auxiliary(model)),
        trainable_parameters=count_parameters(model),
        macs=count_macs(model),
        taps={tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in tap_names(model)},
        weights=weights_room.known(name) if _fits_checkpoints(entry.config, config) else (),
        starts_from=plain.name if plain and weights_room.known(plain.name) else None,
        papers=_papers(entry, config),
        options=dataclasses.asdict(config),
    )


def _fits_checkpoints(own: Any, config: Any) -> bool:
    """Whether the weights of `own` are those of `config` too."""
    return all(
        getattr(own, field.name) == getattr(config, field.name)
        for field in dataclasses.fields(own)
        if field.name not in FOR_TRAINING
    )


def _papers(entry: Entry, config: Any) -> tuple[str, ...]:
    """The entry's papers, with that of its attention replaced if the attention was, and those of its backbone."""
    backbone = getattr(config, "backbone_entry", None)
    if backbone is not None:
        return tuple(dict.fromkeys([*entry.papers, *_papers(lookup(backbone.name), backbone.config)]))
    own, new = (getattr(each, "attention", None) for each in (entry.config, config))
    if new == own:
        return entry.papers
    attention: dict[Any, str] = {name: ATTENTION[name].paper for name in (own, new) if isinstance(name, str)}
    papers = [paper for paper in entry.papers if paper != attention.get(own)]
    return tuple(dict.fromkeys(papers + ([attention[new]] if new in attention else [])))


def count_parameters(model: keras.Model) -> int:
    """Trainable parameters, without the moving statistics that `model.count_params()` counts too."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)
