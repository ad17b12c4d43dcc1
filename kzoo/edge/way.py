"""The way from a picture to the answer of a file, in sentences with numbers: `how` of its card."""

import math

from kzoo.detection.suppression import Suppression
from kzoo.images import Pixels
from kzoo.images.pixels import SLIMMEST
from kzoo.output import UNKNOWN, Output
from kzoo.preprocessing import PIXELS

CHANNELS = {1: "grey", 3: "RGB"}
GREY = "grey, 0.299 R + 0.587 G + 0.114 B"
FILTERS = {
    "bilinear": "bilinear with antialiasing, which means a triangle that widens as the picture shrinks",
    "bicubic": "bicubic (a = -0.5) with antialiasing, which means a filter that widens as the picture shrinks",
}
EVEN = "halves rounded to the even number"
FORMULA = f"real = scale * (integer - zero_point); integer = round(real / scale) + zero_point, {EVEN}, then clipped"


def way_in_words(given: dict, pixels: Pixels, wanted: dict, output: Output, boxes: dict | None = None) -> list[str]:
    """What a program without kzoo does from a picture to an answer, step by step.

    Args:
        given: `input` of the card: shape and type, scale and zero point of integers, and what `input_in_words` tells.
        pixels: way in which a picture becomes an image.
        wanted: `output` of the card, as far as its tensor goes.
        output: meaning of the output.
        boxes: what the card tells of the tensor of a detector's boxes, whose scores are `wanted`.

    Returns:
        Full sentences with the numbers of this file.

    Example:
        >>> way_in_words(given, Pixels("crop", 0.875), wanted, output)[1]
        'Resize the shorter side to 256 pixels and the longer one in proportion, rounded down: bilinear with ...'
    """
    batch, *image = given["shape"]
    if len(image) != 3:
        return [f"Feed {given['dtype']} of shape {_shape(given)}.", *_answer(wanted, output)]
    height, width, channels = image
    kind = {1: GREY, 3: "RGB"}.get(channels, f"{channels} channels, as in training")
    steps = [
        "Decode the picture to 8 bits, turn it upright as its EXIF orientation says, lay it on white where it is "
        f"transparent, and take it as {kind}.",
        *_resize(pixels, height, width),
        *_feed(given),
    ]
    if batch is not None and batch > 1:
        steps.append(f"The file takes {batch} images at once: fill up fewer with zeros.")
    if boxes is not None and output.suppression is not None:
        return [*steps, *_boxes(pixels, image, boxes, wanted, output), *_suppression(output.suppression)]
    steps += _answer(wanted, output)
    if output.task == "segmentation":
        steps += _mask(pixels, image, wanted["shape"][1:])
    return steps


def _shape(tensor: dict) -> str:
    """The shape of an input or output in words."""
    return "[" + ", ".join("any" if size is None else str(size) for size in tensor["shape"]) + "]"


def _resize(pixels: Pixels, height: int, width: int) -> list[str]:
    """How a picture comes to height × width, as `Pixels` computes it."""
    size, how = f"{height} x {width} pixels (height x width)", FILTERS[pixels.interpolation]
    if pixels.resize == "stretch":
        return [f"Resize the whole picture to {size}, whatever its proportions: {how}."]
    place = f"top = round((its height - {height}) / 2), left = round((its width - {width}) / 2), {EVEN}"
    if pixels.resize == "pad":
        return [
            f"Resize it in its proportions to fit into {size}: one side is that long, the other one rounded down; "
            f"{how}.",
            f"Put it into the centre of {size} of black: {place}, and it begins at -top and -left.",
        ]
    tall, wide = (math.floor(side / pixels.crop) for side in (height, width))
    if tall == wide:
        covering = f"the shorter side to {tall} pixels and the longer one in proportion, rounded down"
    else:
        covering = (
            f"it in its proportions to cover {tall} x {wide} pixels (height x width): one side is that long, the "
            "other one rounded down"
        )
    return [
        f"Of a picture more than {SLIMMEST} times as long as wide, keep the central {SLIMMEST} times.",
        f"Resize {covering}: {how}.",
        f"Cut out the central {size}: {place}.",
    ]


def _feed(given: dict) -> list[str]:
    """From pixels of 0 to 255 to the numbers of the input."""
    scale, zero_point = given.get("scale"), given.get("zero_point", 0)
    if scale is None or (scale == 1 and zero_point == 0):
        fed = "the pixels as they are, 0 to 255,"
    elif scale == 1:
        fed = f"each pixel of 0 to 255 {'minus' if zero_point < 0 else 'plus'} {abs(zero_point)},"
    else:
        fed = f"round(pixel / {scale:.9g}) + {zero_point}, {EVEN} and clipped,"
    order = f"rows, columns, channels ({CHANNELS.get(given['shape'][-1], 'as trained')})"
    steps = [f"Feed {fed} as {given['dtype']} of shape {_shape(given)}: {order}."]
    if given["values"] != PIXELS:
        steps.append(f"The values are to be {given['values']}; kzoo itself feeds pixels of 0 to 255.")
    if given.get("preprocessing"):
        steps.append(f"Normalise nothing yourself: {given['preprocessing']}.")
    return steps


def _answer(wanted: dict, output: Output) -> list[str]:
    """From the numbers of the output to a class."""
    steps = _integers(wanted, "the output")
    of = "Each pixel of the map has" if output.task == "segmentation" else "The answer is"
    count, names = output.units, output.names
    if output.task == UNKNOWN:
        return [*steps, f"The output has shape {_shape(wanted)}; what it means is not told."]
    if output.units == 1:
        kind = {"logits": "logit x", UNKNOWN: "number x, of unknown meaning,"}.get(output.values, "probability x")
        steps.append(f"{of} one {kind} of class 1, {names[1]!r}, against class 0, {names[0]!r}.")
        if output.values == "logits":
            steps.append("1 / (1 + exp(-x)) is the probability of class 1; from x = 0 on it is the class.")
        elif output.values != UNKNOWN:
            steps.append("From x = 0.5 on class 1 is the class.")
        return steps
    order = f"in the order of the {count} classes"
    if output.multi_label:
        return [*steps, f"{of} {count} probabilities, {order}, each by itself: from 0.5 on a class is there."]
    kind = {"logits": "logits", UNKNOWN: "numbers of unknown meaning"}.get(output.values, "probabilities")
    steps.append(f"{of} {count} {kind}, {order}; the class is that of the largest, of equal ones the first.")
    if output.values == "logits":
        steps.append("exp(x - m) / sum of all exp(x - m), where m is the largest, are the probabilities.")
    return steps


def _integers(wanted: dict, name: str) -> list[str]:
    """What the integers of an output stand for, if it has some."""
    if not wanted.get("scale"):
        return []
    shifted = f"integer {'+' if wanted['zero_point'] < 0 else '-'} {abs(wanted['zero_point'])}"
    return [f"An integer of {name}, {wanted['dtype']}, stands for {wanted['scale']:.9g} * ({shifted})."]


def _boxes(pixels: Pixels, image: list[int], boxes: dict, wanted: dict, output: Output) -> list[str]:
    """From the numbers of boxes and scores to boxes in pixels of the picture."""
    places, (height, width) = wanted["shape"][1], image[:2]
    steps = [
        *_integers(boxes, f"the output {boxes['argument']!r}"),
        *_integers(wanted, f"the output {wanted['argument']!r}"),
        f"The output {boxes['argument']!r} has a box for each of {places} places: left, top, right and bottom, as "
        "shares of the width and the height of the image.",
        f"The output {wanted['argument']!r} has a score for each of the {output.units} classes at each place, in the "
        "order of the classes, each by itself.",
    ]
    if pixels.resize == "pad":
        return [
            *steps,
            f"In pixels of the picture left and right are (share * {width} + left) * its width / its width when "
            f"resized, with the left above; top and bottom (share * {height} + top) * its height / its height when "
            "resized; clip them to the picture.",
        ]
    return [
        *steps,
        "In pixels of the picture left and right are share * its width, and top and bottom share * its height.",
    ]


def _suppression(rules: Suppression) -> list[str]:
    """From all boxes to those that are found."""
    levels = "All places are one level"
    if rules.level_sizes is not None:
        levels = f"The places are those of levels one behind the other, {', '.join(map(str, rules.level_sizes))}"
    return [
        f"A place with a class is a candidate if its score is above {rules.score:g}. {levels}: keep the "
        f"{rules.candidates} candidates of each with the highest scores.",
        "Of all that are left take the one with the highest score, of equal ones the first, and drop each other one "
        f"of its class whose box overlaps its box by more than {rules.overlap:g}: the area that both share over the "
        f"area that they cover together. Go on so with the next one, to {rules.most} boxes at most.",
    ]


def _mask(pixels: Pixels, image: list[int], given: list[int]) -> list[str]:
    """From maps of numbers to a mask as large as the picture."""
    steps = []
    if given[:2] != image[:2]:
        steps.append(f"The map of {given[0]} x {given[1]} is the centre of the image of {image[0]} x {image[1]}.")
    if pixels.resize == "pad":
        steps.append("Cut off what lies on the black border.")
    return [
        *steps,
        "Resize the probabilities of each class to the size of the picture, bilinear with antialiasing; the class of "
        "a pixel is the one whose probability is largest there.",
    ]
