"""What a detector's outputs mean: told by its graph, its meaning, its file and its card alike."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import randomise

import kzoo
from kzoo.detection import FCOS, RETINANET
from kzoo.detection.suppression import Suppression
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.meaning import carried_pixels
from kzoo.output import Output

TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, input_shape=(48, 64, 3))
OTHER = Suppression(score=0.37, candidates=99, overlap=0.45, most=7, level_sizes=(64, 16, 4, 1, 1))


@pytest.mark.parametrize(("kind", "rule", "each"), [("fcos", FCOS, 1), ("retinanet", RETINANET, 9)])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_detector_tells_its_kind_and_its_levels(kind, rule, each, classes):
    output = Output.of_model(kzoo.build(kind, num_classes=classes, **TINY))
    assert (output.task, output.values, output.units, output.num_classes) == ("detection", "sigmoid", classes, classes)
    assert output.suppression == replace(rule, level_sizes=[each * count for count in (64, 16, 4, 1, 1)])
    assert output.detects
    assert output.of_whole
    assert Output.from_json(output.to_json()) == output


def test_what_a_detector_carries_is_in_every_file_of_it(tmp_path):
    model = randomise(kzoo.build("fcos", num_classes=2, **TINY))
    told = kzoo.with_classes(model, ["cat", "dog"], Pixels("pad"), suppression=OTHER)
    told.save(tmp_path / "model.keras")
    kzoo.export(kzoo.fold_batch_norm(told), tmp_path / "model.tflite")
    card = read_card(tmp_path / "model.tflite")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (told, loaded, kzoo.fold_batch_norm(loaded), kzoo.with_classes(loaded, ["cat", "dog"])):
        assert Output.of_model(each) == card.output == Output("detection", "sigmoid", 2, ("cat", "dog"), OTHER)
        assert carried_pixels(each) == card.pixels == Pixels("pad")
    assert card.answer == "scores"
    of_file = Output.of_file(LiteRTModel(tmp_path / "model.tflite"))
    assert of_file == Output("detection", "sigmoid", 2, None, RETINANET)  # which alone tells no more
    image = np.zeros((1, 48, 64, 3), "float32")
    for name, output in model(image).items():
        np.testing.assert_array_equal(output, told(image)[name])


def test_outputs_of_those_names_and_other_shapes_are_no_detector():
    image = keras.Input((8, 8, 3))
    scores = keras.layers.Reshape((64, 3))(image)
    for boxes in (keras.layers.Reshape((48, 4))(image), image):
        with pytest.raises(InvalidValueError, match="has 2 outputs"):
            Output.of_model(keras.Model(image, {"boxes": boxes, "scores": scores}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suppression": None}, None),
        ({"suppression": {"score": 0.1}}, "a suppression must be an object with score, candidates"),
        ({"suppression": OTHER.to_json() | {"score": 2}}, "score=2 is not accepted; it goes from 0 to 1"),
        ({"suppression": OTHER.to_json() | {"score": "0"}}, "score='0' is not accepted"),
        ({"suppression": OTHER.to_json() | {"most": 10**9}}, "most=1000000000 is not accepted"),
        ({"suppression": OTHER.to_json() | {"level_sizes": [4, -1]}}, "has a number for each level"),
        ({"suppression": OTHER.to_json() | {"level_sizes": [True]}}, "has a number for each level"),
        ({"values": "softmax"}, "scores of boxes are 'sigmoid'"),
        ({"task": "classification"}, "is of detection, and task is 'classification'"),
    ],
)
def test_a_card_that_cannot_be_is_one_line(changes, message):
    told = Output("detection", "sigmoid", 2, ("cat", "dog"), OTHER).to_json() | changes
    if message is None:
        assert Output.from_json(told).suppression == RETINANET
        return
    with pytest.raises(InvalidValueError, match=message):
        Output.from_json(told)
