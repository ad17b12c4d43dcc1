"""Pictures with boxes in every format: the same boxes, whoever wrote them down, and what is refused in one line."""

import json
import logging
import re
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kzoo.data.detection_sets import load_boxes
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import Pixels

SIZE = 40, 30  # width, height
COLOURS = {"cat": (255, 0, 0), "dog": (0, 0, 255)}
# split, name -> class and box of each; the second one of train has none
SCENES = {
    ("train", "a"): [("cat", (2, 3, 12, 23)), ("dog", (20, 10, 38, 28))],
    ("train", "b"): [],
    ("val", "c"): [("dog", (5, 5, 15, 25)), ("cat", (18, 2, 30, 9))],
    ("test", "d"): [("cat", (0, 0, 40, 30)), ("dog", (1, 2, 6, 9))],
}


def picture(boxes) -> Image.Image:
    """Grey, with the boxes painted in the colours of their classes."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 128, "uint8")
    for name, (left, top, right, bottom) in boxes:
        pixels[top:bottom, left:right] = COLOURS.get(name, (0, 255, 0))
    return Image.fromarray(pixels)


def save(path: Path, boxes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(boxes).save(path)


def voc_xml(boxes, size=SIZE, **more) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{more.get('difficult', 0)}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in boxes
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>other.jpg</filename>{sides}{objects}</annotation>"


def write_voc(root: Path, scenes=SCENES) -> Path:
    for (split, name), boxes in scenes.items():
        save(root / "JPEGImages" / f"{name}.png", boxes)
        for folder, file, text in (("Annotations", f"{name}.xml", voc_xml(boxes)), ("ImageSets/Main", "", "")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            if file:
                (root / folder / file).write_text(text)
        with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")
    return root


def write_voc_folders(root: Path, scenes=SCENES) -> Path:
    for (split, name), boxes in scenes.items():
        save(root / split / f"{name}.png", boxes)
        (root / split / f"{name}.xml").write_text(voc_xml(boxes, size=(0, 0)))
    return root


def coco_value(scenes, names=("cat", "dog"), images=""):
    keys = [*scenes]
    numbers = {name: 7 * index + 3 for index, name in enumerate(names)}
    annotations = [
        {
            "id": 100 * index + place,
            "image_id": index,
            "category_id": numbers[name],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "iscrowd": 0,
        }
        for index, key in enumerate(keys)
        for place, (name, box) in enumerate(scenes[key])
    ]
    files = [
        {"id": index, "file_name": f"{images}{name}.png", "width": SIZE[0], "height": SIZE[1]}
        for index, (_, name) in enumerate(keys)
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": files, "annotations": annotations, "categories": categories}


def write_coco(root: Path, scenes=SCENES) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        mine = {key: boxes for key, boxes in scenes.items() if key[0] == split}
        for (_, name), boxes in mine.items():
            save(root / f"{split}2017" / f"{name}.png", boxes)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco_value(mine)))
    (root / "annotations" / "captions_train2017.json").write_text("[]")
    return root


def write_yolo(root: Path, scenes=SCENES) -> Path:
    for (split, name), boxes in scenes.items():
        save(root / "images" / split / f"{name}.png", boxes)
        lines = [
            f"{[*COLOURS].index(label)} {(x1 + x2) / 80} {(y1 + y2) / 60} {(x2 - x1) / 40} {(y2 - y1) / 30}"
            for label, (x1, y1, x2, y2) in boxes
        ]
        labels = root / "labels" / split / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            labels.write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: ../train\nnames: {0: cat, 1: dog}\n")
    return root


def write_table(root: Path, scenes=SCENES) -> Path:
    rows = ["filename,width,class,xmin,ymin,xmax,ymax,split"]
    for (split, name), boxes in scenes.items():
        save(root / f"{name}.png", boxes)
        rows += [f"{name}.png,40,{label},{','.join(map(str, box))},{split}" for label, box in boxes]
        rows += [] if boxes else [f"{name}.png,,,,,,,{split}"]
    (root / "boxes.csv").write_text("\n".join(rows))
    return root / "boxes.csv"


WRITERS = [write_voc, write_voc_folders, write_coco, write_yolo, write_table]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_boxes(tmp_path, write):
    data = load_boxes(str(write(tmp_path / "set")))
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (30, 40, 3)
    assert data.has_test
    for split, part in (("train", data.train), ("val", data.validation), ("test", data.test)):
        mine = {name: boxes for (where, name), boxes in SCENES.items() if where == split}
        found = {Path(file.path).stem: index for index, file in enumerate(part.files)}
        assert found.keys() == mine.keys()
        for name, boxes in mine.items():
            example = part.read(found[name])
            assert {key: (value.shape, value.dtype.name) for key, value in example.items()} == dict(part.specs)
            assert example["size"].tolist() == [30, 40]
            count = len(boxes)
            assert example["classes"].tolist() == [["cat", "dog"].index(each) for each, _ in boxes] + [-1] * (
                2 - count
            )
            expected = np.array([box for _, box in boxes]).reshape(-1, 4) / [40, 30, 40, 30]
            np.testing.assert_allclose(example["boxes"][:count], expected, atol=1e-6)
            np.testing.assert_array_equal(example["image"], np.asarray(picture(boxes)))


@pytest.mark.parametrize("pixels", [Pixels("stretch"), Pixels("pad")])
@pytest.mark.parametrize("shape", [(60, 80), (64, 48), (31, 97)])
def test_boxes_are_where_their_paint_is_however_pictures_are_fitted(tmp_path, pixels, shape):
    scenes = {("train", "a"): [("cat", (2, 3, 12, 23))], ("train", "b"): [("dog", (20, 10, 38, 28))]}
    scenes |= {("val", "c"): [("dog", (5, 5, 15, 25))], ("test", "d"): [("cat", (9, 0, 40, 17))]}
    data = load_boxes(str(write_table(tmp_path, scenes)), image_size=shape, pixels=pixels)
    for part in (data.train, data.validation, data.test):
        for index in range(part.size):
            example = part.read(index)
            for box, label in zip(example["boxes"], example["classes"].tolist(), strict=True):
                if label < 0:
                    continue
                painted = np.abs(example["image"].astype(int) - [*COLOURS.values()][label]).sum(axis=-1) < 128
                rows, columns = (np.flatnonzero(painted.any(axis=axis)) for axis in (1, 0))
                seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                assert np.abs(box * [shape[1], shape[0], shape[1], shape[0]] - seen).max() <= 1.01
                back = pixels.boxes_in_picture(box[None], SIZE, shape)
                truth = next(boxes[0][1] for boxes in scenes.values() if boxes[0][1][0] == round(back[0, 0]))
                np.testing.assert_allclose(back[0], truth, atol=1e-4)


def test_boxes_that_cannot_be_right_are_dropped_and_counted_in_one_warning(tmp_path, caplog):
    good = ("cat", (2, 3, 12, 23))
    scenes = {
        ("train", "a"): [good, good, ("cat", (9, 9, 9, 20)), ("dog", (30, 3, 20, 9)), ("dog", (1, 2, 6, 9))],
        ("train", "b"): [("cat", (-5, 4, 20, 35)), ("dog", (50, 50, 60, 60)), ("dog", (2, 3, 12, 23)), good],
        ("val", "c"): [good, ("dog", (1, 2, 7, 9))],
        ("test", "d"): [good, ("dog", (1, 2, 8, 9))],
    }
    with caplog.at_level(logging.WARNING, "kzoo"):
        data = load_boxes(str(write_voc(tmp_path, scenes)))
    [record] = caplog.records
    assert record.getMessage() == (
        f"{tmp_path}, of 13 boxes: 1 box there twice, and one of them dropped (such as JPEGImages/a.png: 2, 3, 12, "
        "23); 1 box less than 1 pixel wide or high, and dropped (such as JPEGImages/a.png: 9, 9, 9, 20); 1 box turned "
        "inside out, and dropped (such as JPEGImages/a.png: 30, 3, 20, 9); 1 box reaching outside, and cut at the "
        "border (such as JPEGImages/b.png: -5, 4, 20, 35); 1 box outside of their picture, and dropped (such as "
        "JPEGImages/b.png: 50, 50, 60, 60)"
    )
    kept = {Path(file.path).stem: data.train.read(index) for index, file in enumerate(data.train.files)}
    assert kept["a"]["classes"].tolist() == [0, 1, -1]
    np.testing.assert_allclose(kept["b"]["boxes"][0], [0, 4 / 30, 0.5, 1], atol=1e-6)


def test_crowds_stand_apart_in_the_classes(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "Annotations" / "c.xml").write_text(
        voc_xml(SCENES["val", "c"][:1], difficult=1).replace("</annotation>", "")
        + voc_xml(SCENES["val", "c"][1:]).split("</size>")[1]
    )
    assert load_boxes(str(tmp_path)).validation.read(0)["classes"].tolist() == [-3, 0]


def test_what_is_not_divided_is_divided_by_the_rarest_class(tmp_path):
    scenes = {
        ("", f"{index:02}"): [("dog" if index % 5 else "cat", (2, 3, 12, 9 + index % 20))] for index in range(40)
    }
    table = write_table(tmp_path, scenes)
    table.write_text(re.sub(",(split)?$", "", table.read_text(), flags=re.MULTILINE))
    data = load_boxes(str(table), seed=3)
    assert (data.train.size + data.validation.size, data.test.size, data.has_test) == (32, 8, False)
    assert data.validation.size in (3, 4)
    again = load_boxes(str(table), seed=4)
    assert again.test.files == data.test.files
    assert again.validation.files != data.validation.files
    whole = load_boxes(str(table), divided=False)
    assert (whole.train.size, whole.validation.size, whole.test.size) == (40, 0, 0)
    assert (data.test.arrays()["classes"] == 0).sum() in (1, 2), "of eight in 40"


def test_names_say_the_order_of_the_classes(tmp_path):
    table = str(write_table(tmp_path))
    data = load_boxes(table, class_names=("dog", "bird", "cat"))
    assert data.classes == ("dog", "bird", "cat")
    assert data.validation.read(0)["classes"].tolist() == [0, 2]
    with pytest.raises(DatasetError, match=r"has boxes of 'dog'; the classes are said to be cat, dogs; did you mean"):
        load_boxes(table, class_names=("cat", "dogs"))


LAUGHS = textwrap.dedent("""\
    <?xml version="1.0"?>
    <!DOCTYPE lolz [<!ENTITY a "lol">%s]>
    <annotation><object><name>&z;</name></object></annotation>""") % "".join(
    f'<!ENTITY {one} "{f"&{other};" * 10}">' for other, one in zip("abcdefghij", "bcdefghijz", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"b\.xml is no valid XML: not well-formed .* repair or remove it"),
        ("", r"b\.xml is no valid XML: no element found"),
        ("<annotation>", r"b\.xml is no valid XML: no element found"),
        (LAUGHS, r"b\.xml declares a document type \(<!DOCTYPE\), which is not read"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', r"b\.xml is no valid XML: unknown encoding"),
        ("<html></html>", r"b\.xml describes no picture: it begins with <html>"),
        ("<annotation><object></object></annotation>", r"b\.xml has an <object> without a <name>"),
        (
            voc_xml([("cat", (1, 2, "x", 4))]),
            r"the <bndbox> of 'cat' is no four numbers: xmin '1', ymin '2'",
        ),
        (voc_xml([("cat", (1, 2, "nan", 4))]), r"b\.xml: a box of 'cat' is no four numbers"),
        (voc_xml([], size=(30, 40)), r"b\.xml describes a picture of 30×40 pixels, and .*, upright, has 40×30"),
    ],
)
def test_hostile_xml_is_one_line(tmp_path, text, message):
    write_voc(tmp_path)
    (tmp_path / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(DatasetError, match=message) as refused:
        load_boxes(str(tmp_path))
    assert len(str(refused.value).splitlines()) == 1


def test_a_turned_picture_has_the_size_it_is_seen_in(tmp_path):
    write_voc(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    picture(SCENES["train", "b"]).rotate(90, expand=True).save(tmp_path / "JPEGImages" / "b.png", exif=exif)
    assert load_boxes(str(tmp_path)).train.size == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value["annotations"][0].update(category_id=4), "is of a category 4, which is not in the file"),
        (lambda value: value["annotations"][0].update(image_id=9), "is of an image 9, which is not in the file"),
        (
            lambda value: value["annotations"][0].update(bbox=[1, 2, 3]),
            "has no bbox of four numbers: left, top",
        ),
        (lambda value: value["annotations"][0].update(bbox=[1, 2, 3, "4"]), "has no bbox of four numbers"),
        (lambda value: value["images"][0].pop("file_name"), "the image with the id 0 has no id and file_name"),
        (lambda value: value["images"][0].update(file_name="x.png"), "there is no picture .*x.png"),
        (lambda value: value["images"][0].update(width=41), "describes a picture of 41×30 pixels"),
        (lambda value: value["categories"].append({"id": 3, "name": "bird"}), "has no id and name of its own"),
        (
            lambda value: value["categories"][0].update(name="bird"),
            "has other categories than .* 'bird' with the id",
        ),
        (lambda value: value.pop("images"), "must have lists of objects images, annotations, categories"),
    ],
)
def test_wrong_json_is_one_line(tmp_path, change, message):
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    with pytest.raises(DatasetError, match=message):
        load_boxes(str(tmp_path))


def test_a_json_file_alone_is_divided(tmp_path):
    scenes = {("", f"{index:02}"): [("cat", (2, 3, 12, 9 + index))] for index in range(20)}
    for (_, name), boxes in scenes.items():
        save(tmp_path / "images" / f"{name}.png", boxes)
    (tmp_path / "boxes.json").write_text(json.dumps(coco_value(scenes)))
    data = load_boxes(str(tmp_path / "boxes.json"))
    assert data.classes == ("cat",), "of dogs there is no box"
    assert (data.train.size, data.validation.size, data.test.size) == (14, 2, 4)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels/val/c.txt", "2 .5 .5 .1 .1", "c.txt, line 1: the class '2' has no name; there are 2, from 0 on"),
        ("labels/val/c.txt", "\n0 .5 .5 .1", "c.txt, line 2 has 4 cells, .* a box is a class and 4 numbers"),
        ("labels/val/c.txt", "0 .1 .1 .2 .1 .2 .2", "c.txt, line 1 has 7 cells"),
        ("labels/val/z.txt", "0 .5 .5 .1 .1", "z.txt has no picture of its name in images"),
        ("data.yaml", "names: [", "data.yaml is no valid YAML"),
        ("data.yaml", "names: {0: cat, 2: dog}", "does not name its classes; write classes.txt"),
        ("classes.txt", "cat\ncat\n", "classes.txt must name each class once"),
    ],
)
def test_wrong_yolo_files_are_one_line(tmp_path, file, text, message):
    write_yolo(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_boxes(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename", "photo", "must have a header with one column path"),
        ("cat,2,3,12,23", "cat,2,3,x,23", "line 2: left '2', top '3', right 'x', bottom '23': these must be four"),
        ("cat,2,3,12,23", ",2,3,12,23", "line 2: a box without a label"),
        ("2,3,12,23,train", "2,3,12,23,test", r"line 3: a\.png is in train, and in test in line 2"),
        ("2,3,12,23,train", "2,3,12,23,tree", "line 2: split 'tree' is not accepted"),
        ("a.png,40,cat", "x.png,40,cat", r"line 2: x\.png is no file in"),
        ("a.png,40,cat", "../a.png,40,cat", r"line 2: the path '\.\./a\.png' leaves the dataset's folder; give paths"),
    ],
)
def test_wrong_rows_are_one_line(tmp_path, old, new, message):
    table = write_table(tmp_path)
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        load_boxes(str(table))


@pytest.mark.parametrize("up", ["../../", "/", "images/../../"])
def test_a_file_name_of_coco_that_leaves_the_folder_is_refused(tmp_path, up):
    root = write_coco(tmp_path / "set")
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"file_name": "', f'"file_name": "{up}'))
    message = rf"instances_val2017\.json, the image with the id 0: the path '{up}.*' leaves the dataset's folder; give"
    for given in (root, file):
        with pytest.raises(DatasetError, match=message):
            load_boxes(str(given))


def test_sets_that_cannot_train_are_one_line(tmp_path):
    none = write_table(tmp_path / "none", {key: [] for key in SCENES})
    with pytest.raises(DatasetError, match="has 4 pictures and no box in any of them"):
        load_boxes(str(none))
    only = write_table(tmp_path / "only", {key: boxes if key[0] == "train" else [] for key, boxes in SCENES.items()})
    with pytest.raises(DatasetError, match="no picture of validation has a box; each of train, validation, test"):
        load_boxes(str(only))
    fresh = {**SCENES, ("test", "d"): [("bird", (1, 2, 6, 9))]}
    with pytest.raises(DatasetError, match="test has pictures of classes that train lacks: bird; train has cat, dog"):
        load_boxes(str(write_voc(tmp_path / "fresh", fresh)))
    with pytest.raises(DatasetError, match="describes no boxes; it must hold Pascal VOC's XML"):
        load_boxes(str(tmp_path / "fresh" / "JPEGImages"))
    with pytest.raises(DatasetError, match=r"no file or folder at '\./nowhere'"):
        load_boxes("./nowhere")
    with pytest.raises(InvalidValueError, match="resize='crop' leaves out the borders of pictures, and the boxes of"):
        load_boxes(str(only), pixels=Pixels("crop"))


def test_a_picture_that_is_absent_and_one_in_two_lists_are_named(tmp_path):
    root = write_voc(tmp_path / "set")
    (root / "JPEGImages" / "c.png").unlink()
    with pytest.raises(DatasetError, match=r"c\.xml: no picture is called 'c' in the dataset"):
        load_boxes(str(root))
    root = write_voc(tmp_path / "twice")
    (root / "ImageSets" / "Main" / "test.txt").write_text("d\na\n")
    with pytest.raises(DatasetError, match=r"test\.txt names a, which is in train too"):
        load_boxes(str(root))
    root = write_voc(tmp_path / "more")
    (root / "ImageSets" / "Main" / "test.txt").write_text("d\nq\n")
    with pytest.raises(DatasetError, match="names q, which no XML file describes"):
        load_boxes(str(root))


def test_the_xml_of_the_tests_is_what_a_library_reads():
    tree = ElementTree.fromstring(voc_xml(SCENES["train", "a"]))
    assert [one.findtext("name") for one in tree.findall("object")] == ["cat", "dog"]


def test_a_set_is_called_as_it_was_asked_for(tmp_path):
    write_voc(tmp_path / "pets")
    assert load_boxes("pets", data_dir=str(tmp_path)).name == "pets"
    assert load_boxes(str(tmp_path / "pets")).name == str(tmp_path / "pets")
