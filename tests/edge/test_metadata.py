"""Metadata inside a file: read back by the numbers of the schema's fields, and what the file computes with them."""

import io
import json
import zipfile
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from helpers import converted_once, pixels
from keras import layers

import kzoo
from kzoo.edge import Card, LiteRTModel, with_io
from kzoo.edge.card import describe
from kzoo.edge.convert import convert
from kzoo.edge.metadata import BUFFER
from kzoo.images import Pixels
from kzoo.output import Output

NAMES = ("né", "猫 и собака", 'a "b", c')
SHAPE = (9, 13, 3)


class Table:
    """A table of a flatbuffer; its fields are told by their numbers in the schema."""

    def __init__(self, content: bytes, place: int = 0):
        if not place:
            place = int.from_bytes(content[:4], "little")
        self.content, self.table = content, flatbuffers.table.Table(content, place)

    def place(self, field: int) -> int:
        offset = self.table.Offset(4 + 2 * field)
        assert offset, f"no field {field}"
        return self.table.Pos + offset

    def has(self, field: int) -> bool:
        return bool(self.table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return self.table.String(self.place(field)).decode("utf-8")

    def byte(self, field: int) -> int:
        return self.content[self.place(field)] if self.has(field) else 0

    def integer(self, field: int) -> int:
        return int.from_bytes(self.content[self.place(field) :][:4], "little")

    def one(self, field: int) -> "Table":
        return Table(self.content, self.table.Indirect(self.place(field)))

    def many(self, field: int) -> "list[Table]":
        if not self.has(field):
            return []
        start = self.table.Vector(self.place(field) - self.table.Pos)
        count = self.table.VectorLen(self.place(field) - self.table.Pos)
        return [Table(self.content, self.table.Indirect(start + 4 * index)) for index in range(count)]

    def numbers(self, field: int, dtype: str) -> np.ndarray:
        start = self.table.Vector(self.place(field) - self.table.Pos)
        count = self.table.VectorLen(self.place(field) - self.table.Pos)
        return np.frombuffer(self.content, dtype, count, start)


def metadata_of(content: bytes) -> Table:
    """The metadata of a file, as they lie in it."""
    model = schema.Model.GetRootAs(content)
    entries = {model.Metadata(index).Name(): model.Metadata(index).Buffer() for index in range(model.MetadataLength())}
    packed = model.Buffers(entries[BUFFER.encode()]).DataAsNumpy().tobytes()
    assert packed[4:8] == b"M001"
    return Table(packed)


def packed_files(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())  # readers map them
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def classifier(units: int = 3, activation: str | None = "softmax", rescaled: bool = True) -> keras.Model:
    keras.utils.set_random_seed(units)
    image = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 127.5, -1)(image) if rescaled else image
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.Conv2D(40, 3, activation="relu")(x)
    return keras.Model(image, layers.Dense(units, activation)(layers.GlobalAveragePooling2D()(x)), name="seen")


@pytest.fixture(scope="module")
def model():
    with converted_once():
        yield classifier()


@pytest.fixture(scope="module", params=["float32", "int8"])
def file(request, model, tmp_path_factory):
    """Path of a file that was scored on seven images, and its card as JSON."""
    path = tmp_path_factory.mktemp("metadata") / "model.tflite"
    images = pixels(24, *SHAPE)
    labels = np.array(model(images[:7])).argmax(axis=-1)
    labels[0] = (labels[0] + 1) % 3
    card = Card(Output.of_model(model, NAMES), Pixels("pad"))
    report = kzoo.export(model, path, request.param, images, card=card, evaluation=(images[:7], labels))
    assert report.size_bytes == path.stat().st_size
    return path, json.loads(Path(f"{path}.json").read_text(encoding="utf-8")), report


@pytest.fixture(scope="module")
def maps():
    """A model that gives maps, and its file."""
    image = keras.Input(SHAPE)
    model = keras.Model(image, layers.Conv2D(3, 1)(layers.Rescaling(1 / 255)(image)))
    return model, convert(model, 1)


def test_name_version_licence_and_way_stand_in_the_file(file):
    path, told, _ = file
    found = metadata_of(path.read_bytes())
    assert (found.text(0), found.text(2), found.text(4)) == ("seen", told["precision"], "made with kzoo 0.2.0")
    assert found.text(5) == told["license"]
    assert found.text(1).splitlines()[:-1] == told["how"]
    assert found.text(1).splitlines()[
        -1
    ] == f"Measured: accuracy {told['measured']['accuracy']['value']:.4f} on 7 " + ("test images.")
    assert found.text(7) == "1.0.0"
    (graph,) = found.many(3)
    assert graph.text(0) == told["signature"] == "serving_default"


def test_the_input_is_an_image_of_pixels_that_nobody_normalises(file):
    """MediaPipe and ML Kit feed (pixel - mean) / std: the file does what remains to be done."""
    path, told, _ = file
    (tensor,) = metadata_of(path.read_bytes()).many(3)[0].many(2)
    assert tensor.text(0) == told["input"]["argument"]
    content = tensor.one(3)
    assert (content.byte(0), content.one(1).byte(0)) == (2, 1)  # image properties, RGB
    size = content.one(1).one(1)
    assert (size.integer(0), size.integer(1)) == (13, 9)  # width, height
    (unit,) = tensor.many(4)
    assert unit.byte(0) == 1
    assert (unit.one(1).numbers(0, "<f4").tolist(), unit.one(1).numbers(1, "<f4").tolist()) == ([0], [1])
    assert (tensor.one(5).numbers(0, "<f4").tolist(), tensor.one(5).numbers(1, "<f4").tolist()) == ([255], [0])


def test_labels_are_packed_to_the_letter_and_belong_to_the_output(file):
    path, told, _ = file
    content = path.read_bytes()
    files = packed_files(content)
    assert files["labels.txt"] == "".join(f"{name}\n" for name in NAMES)
    (tensor,) = metadata_of(content).many(3)[0].many(3)
    (labels,) = tensor.many(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # of an axis of the tensor
    assert tensor.one(3).byte(0) == 1
    assert tensor.text(1).startswith("probability of each class; they sum to 1")
    assert ("zero_point -128" in tensor.text(1)) == (told["precision"] == "int8")


def test_the_card_is_packed_too(file):
    path, told, _ = file
    assert json.loads(packed_files(path.read_bytes())["kzoo_card.json"]) == {
        name: value for name, value in told.items() if name != "sha256"
    }


def test_metadata_change_no_number_and_no_partition(file, model):
    """The file is compared with itself as it was before, whose constants also began at multiples of 16."""
    path, _, report = file
    content = path.read_bytes()
    before = without_metadata(content)
    images = pixels(5, *SHAPE, seed=3)
    np.testing.assert_array_equal(LiteRTModel(content).predict(images), LiteRTModel(before).predict(images))
    assert report.xnnpack_partitions == LiteRTModel(content).xnnpack_partitions() == 1
    constants = schema.Model.GetRootAs(content)
    large = [
        buffer._tab.Vector(buffer._tab.Offset(4)) % 16
        for buffer in map(constants.Buffers, range(constants.BuffersLength()))
        if not buffer.DataIsNone()
    ]
    assert len(large) > 5
    assert not any(large)


def without_metadata(content: bytes) -> bytes:
    """The file, packed anew without its metadata and what lies behind it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.metadata = [entry for entry in model.metadata if entry.name != BUFFER.encode()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_metadata_of_former_types_are_left_out(file):
    """Readers of labels that are told of and not there would fail."""
    path, told, _ = file
    if told["precision"] == "int8":
        content = with_io(path, "float32")
        names = [schema.Model.GetRootAs(content).Metadata(index).Name() for index in range(2)]
        assert BUFFER.encode() not in names
        assert b"labels.txt" not in content
        images = pixels(3, *SHAPE)
        np.testing.assert_allclose(LiteRTModel(content).predict(images), LiteRTModel(path).predict(images), atol=0.01)


def test_metadata_that_are_written_again_replace_the_former(file, model):
    path, told, _ = file
    content = path.read_bytes()
    again, new = describe(content, Card(Output.of_model(model, "abc")), model, "int8", {}, 0)
    assert packed_files(again)["labels.txt"] == "a\nb\nc\n"
    names = [schema.Model.GetRootAs(again).Metadata(i).Name() for i in range(3)]
    assert names.count(BUFFER.encode()) == 1
    assert metadata_of(again).text(1).splitlines() == new["how"]
    card = Card(Output.of_model(model, NAMES), Pixels("pad"))
    same = describe(again, card, model, told["precision"], {"accuracy": told["measured"]["accuracy"]["value"]}, 7)[0]
    assert same == describe(same, card, model, told["precision"], {"accuracy": 6 / 7}, 7)[0]  # to the byte


def test_damaged_metadata_do_not_keep_a_file_from_running(file):
    path, _, _ = file
    content, images = path.read_bytes(), pixels(2, *SHAPE)
    expected = LiteRTModel(content).predict(images)
    place = content.index(b"M001") - 4
    archive = content.index(b"PK\3\4")
    for damaged in (
        content[:place] + b"\xff" * 200 + content[place + 200 :],
        content[:archive],
        content[: archive + 50],
        content[:archive] + b"PK\3\4" * 99,
    ):
        np.testing.assert_array_equal(LiteRTModel(damaged).predict(images), expected)


def described(file, model: keras.Model, output: Output) -> bytes:
    """The file with metadata of another output."""
    return describe(file[0].read_bytes(), Card(output), model, "float32", {}, 0)[0]


@pytest.mark.parametrize(
    ("units", "values", "names", "labels", "score_units", "files"),
    [
        (3, "logits", NAMES, 3, [], {"labels.txt"}),
        (3, "sigmoid", NAMES, 3, [(3, 0.5)], {"labels.txt"}),  # thresholding
        (1, "sigmoid", ("no", "yes"), 1, [], {"labels.txt"}),
        (1, "logits", ("no", "yes"), 1, [(2, None)], {"labels.txt", "score_calibration.txt"}),
        (3, "unknown", NAMES, 3, [], {"labels.txt"}),
        (3, "softmax", None, 0, [], set()),
    ],
)
def test_what_is_done_to_scores_follows_the_output(units, values, names, labels, score_units, files, file, model):
    content = described(file, model, Output("classification", values, units, names))
    packed = packed_files(content)
    assert set(packed) == files | {"kzoo_card.json"}
    assert packed.get("labels.txt", "").splitlines() == list(names or ())[-labels:] * bool(labels)
    assert packed.get("score_calibration.txt", "1,1,0") == "1,1,0"  # 1 / (1 + exp(-(1 * x + 0)))
    (tensor,) = metadata_of(content).many(3)[0].many(3)
    assert {file.text(0) for file in tensor.many(6)} == files
    found = tensor.many(4)
    assert [unit.byte(0) for unit in found] == [number for number, _ in score_units]
    for unit, (number, threshold) in zip(found, score_units, strict=True):
        if number == 3:
            assert np.frombuffer(unit.content, "<f4", 1, unit.one(1).place(0)) == threshold


@pytest.mark.parametrize(
    ("units", "values", "told"), [(3, "softmax", 0), (3, "logits", 2), (1, "logits", 1), (1, "sigmoid", 0)]
)
def test_a_segmenter_tells_how_its_maps_become_probabilities(units, values, told, maps):
    model, content = maps
    card = Card(Output("segmentation", values, units))
    found = metadata_of(describe(content, card, model, "float32", {}, 0)[0])
    (custom,) = found.many(3)[0].many(9)
    assert (custom.text(0), found.text(7)) == ("SEGMENTER_METADATA", "1.5.0")
    options = custom.numbers(1, "u1").tobytes()
    assert options[4:8] == b"V001"
    assert (Table(options).byte(0), Table(options).text(1)) == (told, "1.0.0")


def test_what_nobody_knows_is_not_told(file, model):
    """No range of the pixels of a model without preprocessing, no meaning of a tensor of another rank."""
    plain = classifier(rescaled=False)
    content = describe(file[0].read_bytes(), Card(Output("unknown", "unknown", 3)), plain, "float32", {}, 0)[0]
    (graph,) = metadata_of(content).many(3)
    assert not graph.many(2)[0].has(4)
    assert not graph.many(2)[0].has(5)
    assert not graph.has(9)
    assert graph.many(3)[0].text(1).startswith("unknown")


def test_a_line_break_in_a_name_makes_no_second_label(file, model):
    content = described(file, model, Output("classification", "softmax", 3, ("a\r\nb", "c\n", "")))
    assert packed_files(content)["labels.txt"] == "a b\nc \n\n"


def test_each_output_has_its_metadata_and_labels_belong_to_the_answer(tmp_path):
    image = keras.Input(SHAPE)
    x = layers.Conv2D(5, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    answer = layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"maps": x, "classes": answer})
    kzoo.export(
        model, tmp_path / "m.tflite", card=Card(Output("classification", "softmax", 3, NAMES), answer="classes")
    )
    content = (tmp_path / "m.tflite").read_bytes()
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    shapes = [tuple(graph.Tensors(index).ShapeAsNumpy()) for index in graph.OutputsAsNumpy()]
    tensors = metadata_of(content).many(3)[0].many(3)
    found = {shape: (tensor.text(0), len(tensor.many(6))) for shape, tensor in zip(shapes, tensors, strict=True)}
    assert found == {(1, 7, 11, 5): ("maps", 0), (1, 3): ("classes", 1)}
