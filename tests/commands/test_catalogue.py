"""The catalogue is what the models are; `python -m kzoo.commands.catalogue` makes it anew."""

import dataclasses
import json

import pytest
from helpers import fails, slow_but

import kzoo
from kzoo.cli import main
from kzoo.commands.catalogue import list_of, read_catalogue
from kzoo.registry import lookup
from kzoo.weights import known

NAMES = [model.name for model in read_catalogue()]
QUICK = ("cifar_resnet20_cbam", "nat_mini", "resnet50_nl", "unet_padded_cbam", "vgg11")


def test_every_model_is_in_it_with_what_the_registry_says():
    assert kzoo.list_models() == NAMES
    for model in read_catalogue():
        entry = lookup(model.name)
        for field in ("family", "task", "input_shape", "num_classes", "papers"):
            assert getattr(model, field) == getattr(entry, field)
        assert model.weights == known(model.name)[1:]


@pytest.mark.parametrize("name", slow_but(QUICK, NAMES))
def test_sizes_are_those_of_the_model(name):
    assert list_of(name) == next(model for model in read_catalogue() if model.name == name)


def rows(capsys, *args: str) -> list[str]:
    main(["list", *args])
    header, *lines, count = capsys.readouterr().out.splitlines()
    assert header.startswith("model\tfamily\ttask\t")
    assert count == f"{len(lines)} model{'s' * (len(lines) != 1)}"
    return [line.split("\t")[0] for line in lines]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), lambda model: True),
        (("resnet50*",), lambda model: model.name.startswith("resnet50")),
        (("--family", "swin"), lambda model: model.family == "swin"),
        (("--task", "segmentation"), lambda model: model.task == "segmentation"),
        (("--task", "detection"), lambda model: model.name in ("fcos", "retinanet", "retinanet_v2")),
        (("--max-parameters", "11.7M"), lambda model: model.parameters <= 11_700_000),
        (("--max-macs", "0.6G"), lambda model: model.macs <= 600_000_000),
        (("--max-macs", "600M"), lambda model: model.macs <= 600_000_000),
        (("--max-parameters", "269722"), lambda model: model.parameters <= 269_722),
        (("--weights",), lambda model: model.weights),
        (
            ("--weights", "--max-parameters", "12M", "--family", "resnet"),
            lambda model: model.weights and model.parameters <= 12e6 and model.family == "resnet",
        ),
    ],
)
def test_list_keeps_what_is_asked_for(args, expected, capsys):
    wanted = [model.name for model in read_catalogue() if expected(model)]
    assert len(wanted) > 0
    assert rows(capsys, *args) == wanted


def test_list_as_json(capsys):
    main(["list", "resnet18", "--json"])
    (model,) = json.loads(capsys.readouterr().out)
    assert model["parameters"] == kzoo.describe("resnet18").trainable_parameters
    assert model.keys() == {field.name for field in dataclasses.fields(read_catalogue()[0])}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--family", "resnext"), "unknown family 'resnext'; families are"),
        (("--max-parameters", "5MB"), "--max-parameters '5MB' is no number, such as"),
        (("--max-macs", "-1"), "max-macs"),
        (("--max-macs", "nan"), "--max-macs 'nan' is no number"),
        (("--max-macs", "inf"), "--max-macs 'inf' is no number"),
        (("--max-macs", ""), "--max-macs '' is no number"),
        (("--task", "tracking"), "--task"),
    ],
)
def test_mistakes(args, message, capsys):
    assert message in fails(capsys, "list", *args)
