"""What a plan refuses, before anything is built or converted."""

import os

import keras
import pytest

import kzoo
from kzoo.bench.plan import COUNTERPARTS, Plan
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.registry import lookup

CORES = os.cpu_count()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(names=()), "no model given; name models or patterns"),
        (dict(precisions=("float32", "int7")), "precision='int7' is not accepted; use one of 'float32', "),
        (dict(precisions=()), r"precisions=\(\) gives nothing to measure"),
        (dict(threads=()), r"threads=\(\) gives nothing to measure"),
        (dict(threads=(0,)), "threads=0 is not accepted; use one of 1"),
        (dict(threads=(CORES + 1,)), f"threads={CORES + 1} is not accepted"),
        (dict(threads=(1, 1)), r"threads=\(1, 1\) holds one of them twice"),
        (dict(rounds=0), "rounds=0 must be an integer, 1 or more"),
        (dict(batch_size=0), "batch_size=0 must be an integer, 1 or more"),
        (dict(seconds=0), "seconds=0 must be above 0"),
        (dict(seconds=float("nan")), "seconds=nan must be above 0"),
        (dict(input_size=16), r"input_shape=\(16, 16, 3\) is too small .* at least 32×32"),
        (dict(against=("torchvision",)), r"against='torchvision' must be 'keras.applications' or a \.tflite file"),
        (dict(against=("none.tflite",)), r"cannot read none\.tflite"),
        (
            dict(names=("resnet50_v1", "swin_tiny"), against=("keras.applications",)),
            "keras.applications has no counterpart of swin_tiny; it has one of vgg16, ",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InvalidValueError, match=message):
        Plan(**dict(names=("resnet18",)) | options).check()


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="no model matches 'resnet50_cbm'; did you mean 'resnet50_cbam'"):
        Plan(names=("resnet18", "resnet50_cbm")).check()


def test_patterns_and_sizes():
    plan = Plan(names=("resnet50_s*", "resnet50_se"), input_size=96)
    assert plan.models == ["resnet50_sasa", "resnet50_sasa_full", "resnet50_se"]
    assert plan.image_shape("resnet50_se") == (96, 96, 3)
    assert Plan(names=("inception_v3",)).image_shape("inception_v3") == (299, 299, 3)


def test_files_must_take_the_images_of_the_model(add, tmp_path):
    add("small")
    path = tmp_path / "rival.tflite"
    kzoo.export(kzoo.build("small", input_shape=(32, 48, 3)), path)
    with pytest.raises(InvalidValueError, match=r"rival.tflite takes .* 48, 3\), and small .* \(1, 32, 32, 3\)"):
        Plan(names=("small",), against=(str(path),)).check()
    path.write_bytes(b"no file")
    with pytest.raises(InvalidValueError, match="no LiteRT file"):
        Plan(names=("small",), against=(str(path),)).check()


@pytest.mark.usefixtures("without_values")
def test_counterparts_exist_and_take_the_same_images():
    for name, constructor in COUNTERPARTS.items():
        assert callable(getattr(keras.applications, constructor))
        assert lookup(name).task == "classification"
    # the same network: as many parameters, of the default size; the others differ in stride or bias alone
    peer = getattr(keras.applications, COUNTERPARTS["resnet50_v2"])(weights=None)
    assert kzoo.build("resnet50_v2").count_params() == peer.count_params()
