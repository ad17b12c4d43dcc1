"""A network at a glance: the stages that are read, and the picture."""

import re

import keras
import pytest
from helpers import fails
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.errors import InvalidValueError
from kzoo.graph import count_macs
from kzoo.report.architecture import Block, draw_architecture, read_stages
from kzoo.taps import tap_names

ONE_OF_EACH = (
    "cifar_resnet20_cbam", "vgg11", "googlenet_bn", "inception_v3", "residual_attention56", "fpn", "unet_padded_se",
    "swin_tiny", "nat_mini", "simple_cnn", "airbench94", "resnet26_sasa_full", "resnet50_nl5",
)  # fmt: skip


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_weight_multiply_add_tap_and_attention_is_in_one_stage(name):
    model = kzoo.build(name)
    stages = read_stages(model)
    assert sum(stage.parameters for stage in stages) == model.count_params()
    assert sum(stage.macs for stage in stages) == count_macs(model)
    assert [tap for stage in stages for tap in stage.taps] == tap_names(model)
    assert stages[-1].name == "head"
    assert stages[-1].shape == model.output_shape[1:]


def test_the_stages_of_resnet50_are_those_of_the_paper():
    """Table 1 of arXiv:1512.03385: 3, 4, 6 and 3 blocks; the first of a stage has a projection."""
    stages = {stage.name: stage for stage in read_stages(kzoo.build("resnet50_se"))}
    assert [sum(block.repeats for block in stages[f"stage{n}"].blocks) for n in (1, 2, 3, 4)] == [3, 4, 6, 3]
    first, others = stages["stage3"].blocks
    assert first.name == "block1"
    assert first.shape == (14, 14, 1024)
    # 1×1, 3×3 and 1×1 with four batch statistics a channel, and the two dense layers of the gate with their biases
    bottleneck = 1024 * 256 + 9 * 256**2 + 256 * 1024 + 4 * (256 + 256 + 1024)
    gate = 2 * 1024 * 64 + 64 + 1024
    assert others == Block("block2", (14, 14, 1024), bottleneck + gate, others.macs, ("SqueezeExcite",), 5)
    assert stages["stage4"].taps == ("p5",)


def test_the_picture_tells_all_of_it(tmp_path):
    draw_architecture(kzoo.build("cifar_resnet20_cbam"), tmp_path / "net.svg")
    text = (tmp_path / "net.svg").read_text(encoding="utf-8")
    words = re.findall(r"<text[^>]*>([^<]*)</text>|<tspan[^>]*>([^<]*)</tspan>|<!-- (.*?) -->", text)
    shown = " ".join(filter(None, (word for group in words for word in group)))
    for word in ("cifar_resnet20_cbam", "stage2", "block2 ×2", "16×16×32", "CBAM", "p1", "multiply-adds"):
        assert word in shown, word
    draw_architecture(kzoo.build("cifar_resnet20"), tmp_path / "net.png")
    with Image.open(tmp_path / "net.png") as image:
        assert image.width > 500
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_the_command_writes_it(tmp_path, capsys):
    main(["info", "cifar_resnet20", "--attention", "se", "--picture", str(tmp_path / "made" / "net.SVG")])
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "SqueezeExcite" in (tmp_path / "made" / "net.SVG").read_text(encoding="utf-8")
    assert "must end in .svg or .png" in fails(capsys, "info", "cifar_resnet20", "--picture", "net.jpg")
    assert "is a folder" in fails(capsys, "info", "cifar_resnet20", "--picture", str(folder))
    assert "no_such_net" in fails(capsys, "info", "no_such_net", "--picture", str(tmp_path / "none.png"))
    assert not (tmp_path / "none.png").exists()


def test_a_map_of_unknown_size_is_refused(tmp_path):
    model = kzoo.build("cifar_resnet20", input_shape=(None, None, 3))
    with pytest.raises(InvalidValueError, match="size"):
        draw_architecture(model, tmp_path / "net.png")
    assert not list(tmp_path.iterdir())


def test_layers_that_are_named_otherwise_are_stages_by_themselves():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="first"), keras.layers.Flatten()])
    assert [stage.parameters for stage in read_stages(model)] == [112, 0]
