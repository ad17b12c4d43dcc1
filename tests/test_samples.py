"""The samples do what their pages say: each is run without kzoo in it, and answers what kzoo answers."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import pixels
from keras import layers
from PIL import Image

import kzoo
from kzoo.edge import Card, LiteRTModel, read_card
from kzoo.edge.card import card_path, describe, write_card
from kzoo.images import Pixels, read_picture
from kzoo.output import Output
from kzoo.predict import as_segmenter, open_classifier, open_model
from kzoo.recipe import recipe_dir

SAMPLES = recipe_dir() / "samples"
SHAPE = (19, 27, 3)
NAMES = ("né", "猫", "c d")


@pytest.fixture(scope="module")
def models():
    """Task -> a model and its file in int8."""
    keras.utils.set_random_seed(5)
    image = keras.Input(SHAPE)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.Rescaling(1 / 127.5, -1)(image))
    wide = keras.initializers.RandomNormal(stddev=2)
    scores = layers.Dense(3, kernel_initializer=wide)(layers.GlobalAveragePooling2D()(x))
    maps = layers.Conv2D(3, 1, kernel_initializer=wide)(x)
    one = layers.Dense(1, "sigmoid", kernel_initializer=wide)(layers.GlobalAveragePooling2D()(x))
    return {
        "classification": keras.Model(image, layers.Softmax()(scores), name="classes"),
        "segmentation": keras.Model(image, maps, name="maps"),
        "one": keras.Model(image, one, name="one"),
    }


@pytest.fixture(scope="module")
def contents(models, tmp_path_factory):
    directory = tmp_path_factory.mktemp("samples")
    found = {}
    for task, precision in (("classification", "int8"), ("segmentation", "int8"), ("one", "float32")):
        kzoo.export(models[task], directory / f"{task}.tflite", precision, pixels(24, *SHAPE))
        found[task] = (directory / f"{task}.tflite").read_bytes()
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of odd sizes: large, small, a sliver, transparent, grey, turned by its EXIF orientation."""
    directory = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(2)

    def smooth(height: int, width: int, channels: int) -> Image.Image:
        coarse = rng.integers(0, 256, (5, 7, channels), dtype="uint8")
        return Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)

    smooth(97, 131, 3).save(directory / "large.png")
    smooth(11, 5, 3).save(directory / "small.png")
    smooth(3, 331, 3).save(directory / "sliver.png")
    smooth(41, 37, 4).save(directory / "clear.png")
    smooth(35, 60, 1).save(directory / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth(40, 71, 3).save(directory / "turned.jpg", exif=exif)
    return sorted(directory.iterdir())


def run(path: Path, pictures: list[Path], capsys, monkeypatch, tmp_path) -> dict[str, str]:
    """What the Python sample prints of each picture; masks are written to `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["classify.py", str(path), *map(str, pictures)])
    capsys.readouterr()
    runpy.run_path(str(SAMPLES / "python" / "classify.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split(": ", 1) for line in lines)


def with_card(content: bytes, model: keras.Model, pixels: Pixels, names, path: Path) -> Path:
    """The file at `path`, with a card of these pixels."""
    content, told = describe(content, Card(Output.of_model(model, names), pixels), model, "int8", {}, 0)
    path.write_bytes(content)
    write_card(told, content, card_path(path))
    return path


def test_the_python_sample_knows_nothing_of_kzoo():
    text = (SAMPLES / "python" / "classify.py").read_text()
    assert "import kzoo" not in text
    assert "from kzoo" not in text


@pytest.mark.parametrize(
    "pixels", [Pixels("crop", 0.8, "bicubic"), Pixels("pad"), Pixels("stretch"), Pixels()], ids=lambda p: p.resize
)
@pytest.mark.parametrize("task", ["classification", "one"])
def test_the_python_sample_classifies_as_kzoo_does(
    task, pixels, models, contents, pictures, capsys, monkeypatch, tmp_path
):
    names = NAMES[:2] if task == "one" else NAMES
    path = with_card(contents[task], models[task], pixels, names, tmp_path / "m.tflite")
    found = run(path, pictures, capsys, monkeypatch, tmp_path)
    classifier = open_classifier(str(path))
    assert len(found) == len(pictures) == 6
    for picture in pictures:
        (expected,) = classifier.predict(pixels.read(picture, SHAPE)[None])
        told = [f"{each['class']} {each['probability']:.2%}" for each in classifier.top(expected, 5)]
        assert found[str(picture)] == ", ".join(told)


@pytest.mark.parametrize("pixels", [Pixels("stretch"), Pixels("pad", interpolation="bicubic")], ids=lambda p: p.resize)
def test_the_python_sample_writes_the_mask_of_kzoo(pixels, models, contents, pictures, capsys, monkeypatch, tmp_path):
    path = with_card(contents["segmentation"], models["segmentation"], pixels, NAMES, tmp_path / "m.tflite")
    found = run(path, pictures, capsys, monkeypatch, tmp_path)
    segmenter = as_segmenter(open_model(str(path)))
    assert len(found) == 6
    for picture in pictures:
        mask = np.asarray(Image.open(tmp_path / f"{picture.stem}_mask.png"))
        expected = segmenter.segment(read_picture(picture, 3))
        assert mask.shape == expected.shape
        assert np.mean(mask == expected) > 0.999  # a last digit of the probabilities decides where two are equal


def test_the_python_sample_refuses_the_card_of_another_file(models, contents, pictures, tmp_path, capsys, monkeypatch):
    path = with_card(contents["one"], models["one"], Pixels(), None, tmp_path / "m.tflite")
    path.write_bytes(contents["classification"])
    with pytest.raises(SystemExit, match=r"m\.tflite\.json is the card of another file"):
        run(path, pictures, capsys, monkeypatch, tmp_path)


@pytest.mark.parametrize("part", ["task", "values"])
def test_the_python_sample_refuses_others(part, models, contents, pictures, tmp_path, capsys, monkeypatch):
    """Maps of a pyramid, say, or numbers of unknown meaning."""
    path = with_card(contents["one"], models["one"], Pixels(), None, tmp_path / "m.tflite")
    told = json.loads(card_path(path).read_text())
    told["output"][part] = "unknown"
    card_path(path).write_text(json.dumps(told))
    with pytest.raises(SystemExit, match=r"m\.tflite is not of one picture and its classes: this sample ends here"):
        run(path, pictures, capsys, monkeypatch, tmp_path)


SAVED = SAMPLES.parents[1] / "saved_models" / "cifar10_resnet20"
needs_saved = pytest.mark.skipif(not SAVED.exists(), reason="a checkout alone has saved models")


@pytest.fixture
def array(tmp_path, monkeypatch, capsys):
    """The header that is made of the saved int8 file, and what was printed."""
    arguments = [str(SAVED / "model_int8.tflite"), str(tmp_path / "model_data.h")]
    monkeypatch.setattr(sys, "argv", ["c_array.py", *arguments])
    runpy.run_path(str(SAMPLES / "microcontrollers" / "c_array.py"), run_name="__main__")
    return (tmp_path / "model_data.h").read_text(), capsys.readouterr().out


@needs_saved
def test_the_c_array_is_the_model_without_what_lies_behind_it(array):
    header, _ = array
    content = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", header))
    whole = (SAVED / "model_int8.tflite").read_bytes()
    assert content == whole[: whole.index(b"PK\3\4")]
    assert f"const unsigned int model_data_len = {len(content)};" in header
    images = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(LiteRTModel(content).predict(images), LiteRTModel(whole).predict(images))


@needs_saved
def test_the_program_on_the_page_registers_the_operators_that_the_model_needs(array):
    page = (SAMPLES / "microcontrollers" / "README.md").read_text()
    needed = array[1].strip().split("operators: ")[1].split(", ")
    assert sorted(re.findall(r"resolver\.(Add\w+)\(\)", page)) == needed
    assert f"MicroMutableOpResolver<{len(needed)}>" in page


@needs_saved
def test_the_model_runs_in_the_arena_of_the_page(array):
    """In the interpreter for microcontrollers, whose kernels round otherwise."""
    micro = pytest.importorskip("tflite_micro", reason="pip install tflite-micro").runtime.Interpreter
    content = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", array[0]))
    interpreter = micro.from_bytes(content, arena_size=83 * 1024)
    images = pixels(4, 32, 32, 3)
    expected = LiteRTModel(content).predict(images)
    for image, scores in zip(images, expected, strict=True):
        interpreter.set_input((image - 128).astype("int8")[None], 0)
        interpreter.invoke()
        found = (interpreter.get_output(0).astype("float32") + 128) / 256
        assert np.abs(found - scores).max() <= 6 / 256


@needs_saved
@pytest.mark.parametrize("name", ["model_float32.tflite", "model_int8.tflite"])
def test_the_c_sample_gives_the_probabilities_of_kzoo(name, tmp_path):
    """LITERT_HEADERS leads to a folder with litert/c of google-ai-edge/LiteRT, which no package has."""
    headers, compiler = os.environ.get("LITERT_HEADERS"), shutil.which("cc")
    if not headers or not compiler:
        pytest.skip("LITERT_HEADERS does not lead to LiteRT's headers, or there is no compiler")
    library = Path(pytest.importorskip("ai_edge_litert").__file__).parent
    program = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{headers}", SAMPLES / "c" / "classify.c"]
    linked = [library / "libLiteRt.so", f"-Wl,-rpath,{library}", "-lm", "-o", tmp_path / "classify"]
    subprocess.run([*program, *linked], check=True)
    (image,) = pixels(1, 32, 32, 3).astype("uint8")
    (tmp_path / "picture.ppm").write_bytes(b"P6\n32 32\n255\n" + image.tobytes())
    with zipfile.ZipFile(SAVED / name) as archive:
        archive.extract("labels.txt", tmp_path)
    arguments = [tmp_path / "classify", SAVED / name, "picture.ppm", "labels.txt"]
    told = subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    found = [line.split(" ", 1) for line in told.splitlines()]
    assert [name for _, name in found] == list(read_card(SAVED / name).output.class_names)
    (expected,) = LiteRTModel(SAVED / name).predict(image[None])
    np.testing.assert_allclose([float(score) for score, _ in found], expected, atol=1e-6)


def test_every_sample_of_the_table_is_there():
    page = (SAMPLES / "README.md").read_text()
    links = re.findall(r"\]\(([\w./]+)\)", page)
    assert len(links) >= 5
    for link in links:
        assert (SAMPLES / link).exists()
    for name in ("android", "c", "microcontrollers"):
        for link in re.findall(r"\]\(([\w./]+)\)", (SAMPLES / name / "README.md").read_text()):
            assert (SAMPLES / name / link).exists()
