"""A network at a glance: its stages and blocks with shapes, parameters and multiply-adds, drawn as a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from kzoo.errors import InvalidValueError
from kzoo.files import ensure_writable
from kzoo.graph import count_macs, macs_of_layers
from kzoo.layers import ATTENTION, AttentionStem
from kzoo.report.plots import new_figure, save_figure
from kzoo.taps import tap_names

FORMATS = (".svg", ".png")
MECHANISMS = (*(type(entry.layer(name="probe")) for entry in ATTENTION.values()), AttentionStem)
ACROSS = 6  # blocks in a row
PLAIN, ATTENDS, PARAMETERS, MULTIPLY_ADDS = "#eef1f4", "#fde3c8", "#4477aa", "#228833"
WIDTHS = 1.5, 1.42, 1.9  # inches: of a stage's name, of a block, of a column of bars
LINE = 0.16  # inches


@dataclass(frozen=True)
class Block:
    """Layers that belong together by the first words of their names.

    Attributes:
        name: behind that of its stage, such as "block2"; empty for layers that are in no block.
        shape: of its last output, without the batch.
        parameters: number of its weights, moving statistics included.
        macs: its multiply-adds for one image.
        attention: classes of the attention layers in it.
        repeats: how many blocks in a row are the same.
    """

    name: str
    shape: tuple
    parameters: int
    macs: int
    attention: tuple[str, ...] = ()
    repeats: int = 1


@dataclass(frozen=True)
class Stage:
    """Blocks with the same first word.

    Attributes:
        name: that word, such as "stage2".
        blocks: in order.
        taps: of the feature maps that it makes, such as "p3".
    """

    name: str
    blocks: tuple[Block, ...]
    taps: tuple[str, ...]

    @property
    def shape(self) -> tuple:
        """Of the last output."""
        return self.blocks[-1].shape

    @property
    def parameters(self) -> int:
        """Of all its blocks."""
        return sum(block.repeats * block.parameters for block in self.blocks)

    @property
    def macs(self) -> int:
        """Of all its blocks."""
        return sum(block.repeats * block.macs for block in self.blocks)


def read_stages(model: keras.Model) -> list[Stage]:
    """The stages of a model of the zoo, in order, each with its blocks.

    Layers are told apart by their names: of "stage2_block1_conv1" the first word is the stage, and the second the
    block, as two layers at least go on after it.

    Args:
        model: of the zoo, with a known image size.

    Raises:
        InvalidValueError: maps of unknown size.

    Example:
        >>> stage = read_stages(kzoo.build("resnet50_cbam"))[2]
        >>> stage.name, stage.taps, [(block.name, block.repeats) for block in stage.blocks]
        ('stage1', ('p2',), [('block1', 1), ('block2', 2)])
    """
    macs = macs_of_layers(model)
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    pairs = [layer.name.split("_")[:2] for layer in layers if layer.name.count("_") > 1]
    found: dict[str, dict[str, list[keras.layers.Layer]]] = {}
    stage_of: dict[str, str] = {}  # of each layer
    for layer in layers:
        first, *rest = layer.name.split("_")
        if not rest and not layer.weights and _keeps_shape(layer) and _source(layer) in stage_of:
            stage_of[layer.name] = stage_of[_source(layer)]  # a rectifier or a tap by itself
            continue
        stage_of[layer.name] = first
        block = rest[0] if rest and pairs.count([first, rest[0]]) > 1 else ""
        found.setdefault(stage_of[layer.name], {}).setdefault(block, []).append(layer)
    taps = tap_names(model)
    return [
        Stage(
            name,
            tuple(_merged(_block(*item, macs) for item in blocks.items())),
            tuple(tap for tap in taps if stage_of[_source(model.get_layer(tap))] == name),
        )
        for name, blocks in found.items()
    ]


def _source(layer: keras.layers.Layer) -> str:
    """Name of the layer that a layer reads."""
    return layer.input._keras_history.operation.name


def _keeps_shape(layer: keras.layers.Layer) -> bool:
    return isinstance(layer.input, keras.KerasTensor) and layer.output.shape == layer.input.shape


def _block(name: str, layers: Sequence[keras.layers.Layer], macs: dict[str, int]) -> Block:
    return Block(
        name,
        tuple(layers[-1].output.shape[1:]),
        sum(layer.count_params() for layer in layers),
        sum(macs.get(layer.name, 0) for layer in layers),
        tuple(dict.fromkeys(type(layer).__name__ for layer in layers if isinstance(layer, MECHANISMS))),
    )


def _merged(blocks: Iterator[Block]) -> list[Block]:
    """Blocks in a row that differ by their number alone, as one."""
    kept: list[Block] = []
    for block in blocks:
        if kept and block.name and replace(block, name="") == replace(kept[-1], name="", repeats=1):
            kept[-1] = replace(kept[-1], repeats=kept[-1].repeats + 1)
        else:
            kept.append(block)
    return kept


def check_picture(path: str | Path) -> Path:
    """The path, if a picture can be written there.

    Raises:
        InvalidValueError: no ending of `FORMATS`.
        OutputError: its folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"the picture {path} must end in {' or '.join(FORMATS)}")
    if path.is_dir():
        raise InvalidValueError(f"{path} is a folder; give the name of a file that ends in {' or '.join(FORMATS)}")
    ensure_writable(path.absolute().parent)
    return path


def draw_architecture(model: keras.Model, path: str | Path) -> None:
    """Draws the stages of a model, from the image at the top to the answer at the bottom.

    Each row is a stage: its name, shape and taps; its blocks, those with attention in another colour; and bars of the
    share of the parameters and of the multiply-adds that it has.

    Args:
        model: of the zoo, with a known image size.
        path: picture to write, which ends in .svg or .png.

    Raises:
        InvalidValueError: another ending, or maps of unknown size.
        OutputError: the picture cannot be written.

    Example:
        >>> draw_architecture(kzoo.build("resnet50_cbam"), "resnet50_cbam.svg")
    """
    path = check_picture(path)
    stages = read_stages(model)
    across = max(min(len(stage.blocks), ACROSS) for stage in stages)
    heights = [_height(stage) for stage in stages]
    width, height = WIDTHS[0] + across * WIDTHS[1] + 2 * WIDTHS[2], 0.9 + sum(heights)
    figure = new_figure((width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    shape = _size(model.input_shape[1:])
    parameters, macs = sum(stage.parameters for stage in stages), count_macs(model)
    axes.text(0.1, 0.25, model.name, size=13, weight="bold", va="center", parse_math=False)
    axes.text(0.1, 0.5, f"image {shape}, {_short(parameters)} parameters, {_short(macs)} multiply-adds", size=9)
    bars = WIDTHS[0] + across * WIDTHS[1]
    axes.text(bars + 0.1, 0.8, "parameters", size=8, color=PARAMETERS)
    axes.text(bars + WIDTHS[2] + 0.1, 0.8, "multiply-adds", size=8, color=MULTIPLY_ADDS)
    attends = any(block.attention for stage in stages for block in stage.blocks)
    axes.text(0.1, 0.8, "shape; parameters, multiply-adds" + ("; orange: with attention" if attends else ""), size=8)
    top = 0.9
    for number, (stage, tall) in enumerate(zip(stages, heights, strict=True)):
        if number % 2 == 0:
            axes.axhspan(top, top + tall, color="#f8f8f8", zorder=0)
        _draw_stage(axes, stage, top)
        shares = (stage.parameters, parameters, PARAMETERS), (stage.macs, macs, MULTIPLY_ADDS)
        for column, (part, whole, colour) in enumerate(shares):
            _draw_share(axes, bars + column * WIDTHS[2] + 0.1, top + tall / 2, part, whole, colour)
        top += tall
    save_figure(figure, path)


def _box_height(stage: Stage) -> float:
    return LINE * (3 + max(len(block.attention) for block in stage.blocks)) + 0.14


def _height(stage: Stage) -> float:
    boxes = -(-len(stage.blocks) // ACROSS) * _box_height(stage)
    return max(boxes, 0.35 + LINE * len(_words(stage))) + 0.1


def _words(stage: Stage) -> list[str]:
    """What stands below the name of a stage: its shape, and its taps, two in a line."""
    return [_size(stage.shape), *(", ".join(stage.taps[at : at + 2]) for at in range(0, len(stage.taps), 2))]


def _draw_stage(axes, stage: Stage, top: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    tall = _box_height(stage)
    axes.text(0.1, top + 0.2, stage.name, size=9, weight="bold", va="center", parse_math=False)
    axes.text(0.1, top + 0.3, "\n".join(_words(stage)), size=8, va="top", linespacing=1.3)
    for index, block in enumerate(stage.blocks):
        x, y = WIDTHS[0] + index % ACROSS * WIDTHS[1], top + 0.07 + index // ACROSS * tall
        name = block.name or ("other layers" if len(stage.blocks) > 1 else stage.name)
        words = [
            f"{name} ×{block.repeats}" if block.repeats > 1 else name,
            _size(block.shape),
            f"{_short(block.parameters)}, {_short(block.macs)}",
            *block.attention,
        ]
        box = FancyBboxPatch(
            (x + 0.04, y), WIDTHS[1] - 0.08, tall - 0.06, "round,pad=0,rounding_size=0.05",
            facecolor=ATTENDS if block.attention else PLAIN, edgecolor="#888888", linewidth=0.6,
        )  # fmt: skip
        axes.add_patch(box)
        middle = (x + WIDTHS[1] / 2, y + (tall - 0.06) / 2)
        axes.text(*middle, "\n".join(words), size=7, ha="center", va="center", linespacing=1.3, parse_math=False)


def _draw_share(axes, x: float, y: float, part: int, whole: int, colour: str) -> None:
    """A bar for the share of the whole, and its numbers."""
    share = part / whole if whole else 0
    axes.barh(y, 0.75 * share, height=0.16, left=x, color=colour)
    axes.text(x + 0.75 * share + 0.05, y, f"{_short(part)}, {share:.1%}", size=7, va="center")


def _size(shape: Sequence) -> str:
    return "×".join(map(str, shape))


def _short(number: int) -> str:
    """A number with three digits and a unit.

    >>> _short(25_557_032), _short(0)
    ('25.6 M', '0')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return str(number)
