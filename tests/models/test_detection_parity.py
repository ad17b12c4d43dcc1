"""RetinaNet and FCOS give torchvision's outputs, boxes and detections, with state dicts of torchvision's names."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from goldens.seeded import seeded, seeded_pictures
from helpers import randomise, relative_error

import kzoo
from kzoo.errors import WeightsError
from kzoo.models.detector import raw_outputs
from kzoo.places import Places
from kzoo.weights.detection import coco_classes, picture_size

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "detection.npz")
SIZES = {"even": (96, 128), "odd": (75, 101)}
NAMES = ("fcos", "retinanet", "retinanet_v2")
NARROW = dict(backbone="resnet18", channels=64, num_classes=5)
EVERY = {"narrow": 7, "full": 61}  # places
# torchvision's: least score, boxes of a level, largest overlap, boxes of an image
POSTPROCESSING = {"fcos": (0.2, 1000, 0.6, 100)}
RETINANET = (0.05, 1000, 0.5, 300)


def state_dict(kind: str, name: str) -> dict[str, np.ndarray]:
    """Torchvision's names and shapes, with seeded values."""
    state = {}
    for line in GOLDENS[f"{kind}_{name}_state"]:
        key, *shape = str(line).split()
        counter = key.endswith("num_batches_tracked")
        state[key] = np.array(9) if counter else seeded(key, tuple(map(int, shape)))
    return state


def build(kind: str, name: str, size: tuple[int, int], tmp_path):
    path = tmp_path / "state.safetensors"
    safetensors.numpy.save_file(state_dict(kind, name), path)
    model = kzoo.build(name, input_shape=(*size, 3), **(NARROW if kind == "narrow" else {}))
    report = kzoo.load_weights(model, path)
    assert len(report.loaded) == len(model.weights)
    assert not any((report.adapted, report.initialised, report.missing, report.unexpected))
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["narrow", pytest.param("full", marks=pytest.mark.slow)])
def test_equals_torchvision(kind, name, size, tmp_path):
    model = build(kind, name, SIZES[size], tmp_path)
    images, every = seeded_pictures(*SIZES[size]), EVERY[kind]

    def golden(key):
        return GOLDENS[f"{kind}_{name}_{size}_{key}"]

    raw = {key: np.array(value) for key, value in raw_outputs(model)(images).items()}
    assert set(raw) == {"logits", "offsets"} | ({"centerness"} if name == "fcos" else set())
    for key, value in raw.items():
        error = relative_error(value[:, ::every], golden(key))
        print(f"{kind} {name} {size} {key}: {error:.2g}")
        assert error < 1e-4
    layer = model.get_layer("head_boxes")
    np.testing.assert_allclose(layer.places.anchors[::every], golden("anchors"), atol=1e-4)
    outputs = {key: np.array(value) for key, value in model(images).items()}
    pixels = outputs["boxes"] * layer.places.scale
    np.testing.assert_allclose(pixels[:, ::every], golden("decoded"), atol=1e-4 * max(SIZES[size]))
    for number in range(len(images)):
        boxes, scores, labels = suppress(
            layer.places, pixels[number], outputs["scores"][number], *POSTPROCESSING.get(name, RETINANET)
        )
        same_detections(boxes, scores, labels, *(golden(f"{key}{number}") for key in ("boxes", "scores", "labels")))


def suppress(places: Places, boxes, scores, least: float, per_level: int, overlap: float, most: int):
    """Torchvision's post-processing by loops: the best of every level, then class by class the best box first."""
    found = []  # (score, class, place)
    for level in range(len(places.levels)):
        start, stop = np.flatnonzero(places.level_of == level)[[0, -1]] + [0, 1]
        part = scores[start:stop]
        candidates = [(part[place, label], label, place + start) for place, label in np.argwhere(part > least)]
        found += sorted(candidates, key=lambda each: -each[0])[:per_level]
    kept = {}
    for score, label, place in sorted(found, key=lambda each: -each[0]):
        mine = kept.setdefault(label, [])
        others = np.array([boxes[other] for _, other in mine]).reshape(-1, 4)
        sides = np.minimum(others[:, 2:], boxes[place, 2:]) - np.maximum(others[:, :2], boxes[place, :2])
        common = np.prod(np.maximum(sides, 0), axis=1)
        areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (others, boxes[place])]
        with np.errstate(invalid="ignore"):
            if not (common / (areas[0] + areas[1] - common) > overlap).any():
                mine.append((score, place))
    best = sorted(((score, label, place) for label, mine in kept.items() for score, place in mine), reverse=True)[
        :most
    ]
    scores, labels, chosen = map(np.array, zip(*best, strict=True))
    return boxes[chosen], scores, labels


def same_detections(boxes, scores, labels, expected_boxes, expected_scores, expected_labels):
    """The same boxes in the same order, but for boxes whose scores are equal to rounding."""
    assert len(scores) == len(expected_scores) > 10
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
    for score, label, box in zip(scores, labels, boxes, strict=True):
        near = np.abs(expected_scores - score) < 1e-5
        same = near & (expected_labels == label) & (np.abs(expected_boxes - box).max(axis=1) < 0.02)
        assert same.any(), f"{label} at {box}, {score:.6f}"


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [("layer_blocks.0.0.", "layer_blocks.0."), ("regression_head.conv.1.0.", "regression_head.conv.2.")],
)
def test_names_of_older_files_fit(pattern, replacement, tmp_path):
    """Those of the published RetinaNet."""
    state = {key.replace(pattern, replacement): array for key, array in state_dict("narrow", "retinanet").items()}
    safetensors.numpy.save_file(state, tmp_path / "old.safetensors")
    model = kzoo.build("retinanet", input_shape=(64, 64, 3), **NARROW)
    assert len(kzoo.load_weights(model, tmp_path / "old.safetensors").loaded) == len(model.weights)


def test_other_classes_keep_a_new_last_layer(tmp_path, caplog):
    state = state_dict("narrow", "fcos")
    path = tmp_path / "state.safetensors"
    safetensors.numpy.save_file(state, path)
    options = NARROW | dict(num_classes=3)
    model = kzoo.build("fcos", input_shape=(64, 64, 3), weights=str(path), **options)
    assert "the classifier for 3 classes is new" in caplog.text
    bias = model.get_layer("head_class_logits").bias
    np.testing.assert_allclose(bias, -np.log(99), rtol=1e-6)  # the prior of 0.01
    np.testing.assert_array_equal(
        model.get_layer("head_box_offsets").bias, state["head.regression_head.bbox_reg.bias"]
    )
    with pytest.raises(WeightsError, match="the file is for another number of classes"):
        kzoo.load_weights(model, path)


def test_what_lacks_or_is_left_over_is_refused(tmp_path):
    state = state_dict("narrow", "fcos")
    state["extra.weight"] = state.pop("head.regression_head.bbox_ctrness.bias")
    safetensors.numpy.save_file(state, tmp_path / "state.safetensors")
    model = kzoo.build("fcos", input_shape=(64, 64, 3), **NARROW)
    with pytest.raises(
        WeightsError, match=r"1 are missing: head_box_centerness/bias; 1 are unexpected: extra\.weight"
    ):
        kzoo.load_weights(model, tmp_path / "state.safetensors")


def test_a_classifier_gives_the_backbone(tmp_path):
    tiny = dict(backbone_options=dict(widths=(8, 12, 16, 20), depths=(1, 1, 1, 1)))
    alone = randomise(kzoo.build("resnet18", input_shape=(64, 64, 3), **tiny["backbone_options"]))
    alone.save(tmp_path / "alone.keras")
    options = NARROW | tiny | dict(input_shape=(37, 70, 3), backbone_weights=str(tmp_path / "alone.keras"))
    model = kzoo.freeze_backbone(kzoo.build("fcos", **options))
    expected = {variable.path: np.array(variable) for variable in alone.weights}
    found = {variable.path: np.array(variable) for variable in model.weights}
    same = [path for path in expected.keys() & found.keys() if np.array_equal(expected[path], found[path])]
    assert len(same) == len([path for path in expected if not path.startswith("head_")]) > 20
    assert {variable.path[:4] for variable in model.trainable_variables} == {"head", "fpn_"}


def test_public_weights_are_pickles():
    with pytest.raises(WeightsError, match=r"weights='coco'.*retinanet_resnet50_fpn_coco-eeacb38b\.pth.*convert it"):
        kzoo.build("retinanet", weights="coco")


def test_facts_of_coco_weights():
    names = coco_classes()
    assert (len(names), names[0], names[1], names[12], names[90]) == (
        91,
        "__background__",
        "person",
        "N/A",
        "toothbrush",
    )
    assert names.count("N/A") == 10
    assert picture_size(480, 640) == (800, 1066)
    assert picture_size(640, 480) == (1066, 800)
    assert picture_size(300, 900) == (444, 1333)
