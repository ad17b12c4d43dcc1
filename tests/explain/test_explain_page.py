"""`kzoo explain`: what the page and its files tell, one scale of colours, mistakes in a line, a browser."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.commands.explain import find_classes
from kzoo.commands.forms import MapMethod
from kzoo.edge import Card
from kzoo.errors import InvalidValueError, UnknownNameError
from kzoo.explain import draw_map
from kzoo.explain.drawing import AGAINST, FOR, OPACITY, colour_end
from kzoo.explain.methods import METHODS, maps_of
from kzoo.images import Pixels
from kzoo.output import Output

NAMES = ("tit", "<script>alert(1)</script>", '"><img src=x onerror=y>', "robin")
GROUND = ("path", "grass & <b>water</b>", "sky")
STRETCH = Pixels("stretch")


def classifier() -> keras.Model:
    inputs = keras.Input((13, 16, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
    x = keras.layers.Conv2D(5, 3, strides=2, activation="gelu", name="last")(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return randomise(keras.Model(inputs, keras.layers.Dense(len(NAMES), activation="softmax", name="dense")(x)))


def segmenter() -> keras.Model:
    inputs = keras.Input((12, 14, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    return randomise(keras.Model(inputs, keras.layers.Conv2D(len(GROUND), 1, activation="softmax")(x)))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A classifier and a model for segmentation as files with names of classes, a LiteRT file, and pictures."""
    folder = tmp_path_factory.mktemp("files")
    made = {name: folder / f"{name}.keras" for name in ("classes", "ground")}
    model = classifier()
    kzoo.with_classes(model, NAMES, STRETCH).save(made["classes"])
    kzoo.with_classes(segmenter(), GROUND, STRETCH).save(made["ground"])
    made["lite"] = folder / "lite.tflite"
    kzoo.export(model, made["lite"], card=Card(Output("classification", "softmax", len(NAMES), NAMES), STRETCH))
    made["photo"] = folder / 'a"><b onload=x>&.png'
    Image.fromarray(pixels(1, 30, 20, 3)[0].astype("uint8")).save(made["photo"])
    made["dot"], made["wide"] = folder / "dot.png", folder / "wide.png"
    Image.new("RGB", (1, 1), (200, 30, 90)).save(made["dot"])
    Image.fromarray(pixels(1, 40, 10_000, 1)[0, ..., 0].astype("uint8")).save(made["wide"])
    made["text"] = folder / "text.png"
    made["text"].write_text("no picture")
    return made


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def site(files, tmp_path_factory) -> Path:
    """A page of three methods, two layers and three pictures: with a name of HTML, of one pixel, and a long one."""
    folder = tmp_path_factory.mktemp("sites") / "new" / "site"
    pictures = [str(files[name]) for name in ("photo", "dot", "wide")]
    words = ["--method", "gradcam", "eigencam", "occlusion", "--target", NAMES[2], "0", "--layer", "first", "last"]
    main(["explain", str(files["classes"]), *pictures, "--output", str(folder), *words])
    return folder


def test_the_page_is_one_file_that_shows_any_name_as_it_is(site, files):
    html = (site / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags} & {"script", "b", "link", "iframe"} == set()
    assert "http:" not in html
    assert "https:" not in html
    images = page.of("img")
    # Grad-CAM and Eigen-CAM of two layers, occlusion of pixels, feature maps of two layers; the first kernels
    assert len(images) == 3 * (1 + 2 * 2 + 2 + 2 + 2) + 1
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in images)
    assert sum(files["photo"].name in image["alt"] for image in images) == len(images) // 3
    assert any(NAMES[2] in image["alt"] for image in images)
    assert all(name in page.text for name in (*NAMES, files["photo"].name, "Grad-CAM of first", "Occlusion"))
    assert not any(key.startswith("on") or key == "style" for _, attributes in page.tags for key in attributes)
    (policy,) = (each["content"] for each in page.of("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    links = {link["href"] for link in page.of("a")}
    assert links == {f"#{each['id']}" for each in page.of("section")}


def test_json_tells_the_numbers_of_the_maps(site, files):
    told = json.loads((site / "maps.json").read_text(encoding="utf-8"))
    assert sorted(told["files"]) == sorted(path.name for path in site.iterdir())
    model = keras.models.load_model(files["classes"])
    logits = keras.Model(model.input, model.get_layer("pool").output)
    for picture in told["pictures"]:
        image = STRETCH.read(picture["picture"], (13, 16, 3))[None]
        weights, bias = model.get_layer("dense").get_weights()
        score = (np.asarray(logits(image.astype("float32"))) @ weights + bias)[0]
        expected = model.predict(image, verbose=0)[0]
        assert [each["index"] for each in picture["predictions"]] == np.argsort(-expected).tolist()
        for each in picture["maps"]:
            assert (site / each["file"]).is_file()
            if each["method"] == "eigencam":
                assert each["target"] is each["score"] is None
                continue
            index = each["target"]["index"]
            assert each["target"]["class"] == NAMES[index]
            assert each["score"] == pytest.approx(score[index], rel=1e-4, abs=1e-4)
            if each["method"] == "gradcam":
                (found,) = kzoo.grad_cam(model, image, index, each["layer"])
                numbers = [each["smallest"], each["largest"], each["mean"]]
                np.testing.assert_allclose(numbers, [found.min(), found.max(), found.mean()], rtol=1e-4, atol=1e-7)
                assert each["shape"] == list(found.shape)


def test_colours_are_on_one_scale_for_the_classes_of_a_method(site):
    told = json.loads((site / "maps.json").read_text(encoding="utf-8"))
    for picture in told["pictures"]:
        ends = {}
        for each in picture["maps"]:
            ends.setdefault((each["method"], each["layer"]), []).append(each["colours_end"])
        assert {len(found) for (method, _), found in ends.items() if method != "eigencam"} == {2}
        assert all(len(set(found)) == 1 for found in ends.values())
        assert len({found[0] for found in ends.values()}) == len(ends)


def test_drawing_has_no_colour_at_zero_and_its_last_at_both_ends():
    image = np.full((2, 6, 1), 100, "uint8")
    heat = np.repeat([[-9.0, 0, 9]], 2, axis=0)
    drawn = np.asarray(draw_map(image, heat, end=3.0), "float32")
    left, middle, right = drawn[0, 0], drawn[0, drawn.shape[1] // 2], drawn[0, -1]
    np.testing.assert_allclose(middle, middle[0], atol=1)
    for found, tint in ((left, AGAINST), (right, FOR)):
        np.testing.assert_allclose(found, middle + OPACITY * (np.array(tint) - middle), atol=1)
    weak = np.asarray(draw_map(image, heat / 6, end=3.0), "float32")[0, -1]
    np.testing.assert_allclose(weak, (middle + right) / 2, atol=1)
    nothing = np.asarray(draw_map(np.zeros((1, 1, 3)), np.zeros((4, 4))))
    assert (nothing == nothing[0, 0, 0]).all()


def test_few_places_far_beyond_the_others_leave_their_colours():
    heat = np.ones((20, 20))
    heat[0, :2] = 1000
    assert colour_end([heat, -heat]) == 1
    assert colour_end([np.eye(40) * 0, np.pad([[5.0]], 10)]) == 5
    assert colour_end([np.zeros((3, 3))]) == 1


@pytest.mark.parametrize(
    ("image", "heat", "end", "message"),
    [
        (np.zeros((4, 4)), np.zeros((2, 2)), None, r"image has shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), np.zeros((1, 2, 2)), None, r"the map \(1, 2, 2\)"),
        (np.zeros((4, 4, 3)), np.zeros((2, 2)), 0, "end=0 must be a number above 0"),
    ],
)
def test_drawing_refuses_other_shapes(image, heat, end, message):
    with pytest.raises(InvalidValueError, match=message):
        draw_map(image, heat, end)


def test_segmenter(files, tmp_path, capsys):
    main(["explain", str(files["ground"]), str(files["photo"]), "--output", str(tmp_path / "site"), "--json"])
    told = json.loads(capsys.readouterr().out)
    (picture,) = told["pictures"]
    shares = [each["share"] for each in picture["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert [each["target"] for each in picture["maps"]] == [
        {"index": each["index"], "class": each["class"]} for each in picture["predictions"][:2]
    ]
    page = Page((tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert "share" in page.text
    assert len(page.of("img")) == 2 + len(picture["maps"]) + len(picture["inside"]["features"]) + 1


def test_litert_file_is_explained_by_itself(files, tmp_path, capsys):
    words = ["explain", str(files["lite"]), str(files["photo"]), "--output", str(tmp_path / "site")]
    main([*words, "--target", "robin", "--json"])
    told = json.loads(capsys.readouterr().out)
    ((found,), image) = told["pictures"][0]["maps"], STRETCH.read(files["photo"], (13, 16, 3))
    lite = kzoo.edge.LiteRTModel(files["lite"])
    assert (found["method"], found["layer"], found["target"]["class"]) == ("occlusion", None, "robin")
    assert found["score"] == pytest.approx(lite.predict(image[None])[0, 3], abs=1e-6)
    assert found["largest"] > found["smallest"]
    assert found["largest"] == pytest.approx(kzoo.explain.occlusion(lite, image[None], 3).max(), rel=1e-5)


def words_of_mistakes() -> dict:
    return {
        "no picture given": ["classes"],
        "has no class 'robbin': give a name, or an index from 0 to 3; did you mean 'robin'?": [
            *("classes", "photo", "--target", "robbin")
        ],
        "has no class '4': give a name, or an index from 0 to 3": ["classes", "photo", "--target", "4"],
        "has no layer 'lst' before its output": ["classes", "photo", "--layer", "lst"],
        "pool of functional gives (1, 5), no map (n, height, width, channels)": [
            "classes",
            "photo",
            "--layer",
            "pool",
        ],
        "is a LiteRT file, which has no gradients and no layers to read, and gradcam needs them": [
            *("lite", "photo", "--method", "rise", "gradcam")
        ],
        "rise and ig: no method here takes a layer": [
            *("classes", "photo", "--method", "rise", "ig", "--layer", "last")
        ],
        "occlusion: no method here takes a layer": ["lite", "photo", "--layer", "last"],
        "functional has no attention over places, which rollout is made of: MultiHeadSelfAttention": [
            *("classes", "photo", "--method", "gradcam", "gradrollout")
        ],
        "text.png": ["classes", "photo", "text"],
    }


@pytest.mark.parametrize("message", words_of_mistakes())
def test_mistakes_are_one_line_and_leave_nothing(message, files, tmp_path, capsys):
    words = [str(files.get(word, word)) for word in words_of_mistakes()[message]]
    with pytest.raises(SystemExit) as stop:
        main(["explain", *words, "--output", str(tmp_path / "new" / "site")])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(site, files, tmp_path, capsys):
    mine, page = tmp_path / "mine", tmp_path / "page"
    mine.mkdir()
    (mine / "maps.json").write_text("{}")
    shutil.copytree(site, page)
    (page / "notes.txt").write_text("mine")
    for folder, message in ((mine, "holds other files than those of kzoo explain"), (page, "holds notes.txt")):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(SystemExit):
            main(["explain", str(files["classes"]), str(files["dot"]), "--output", str(folder)])
        assert message in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_page_is_replaced_whole_or_stays(site, files, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page"
    shutil.copytree(site, page)
    before = {path.name: path.read_bytes() for path in page.iterdir()}
    words = ["explain", str(files["classes"]), str(files["dot"]), "--output", str(page)]
    with monkeypatch.context() as broken:
        broken.setattr("kzoo.explain.picture.legend", lambda *told: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(words)
    assert {path.name: path.read_bytes() for path in page.iterdir()} == before
    main(words)
    assert len(json.loads((page / "maps.json").read_text())["pictures"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert "2 maps of 1 picture" in capsys.readouterr().out


def test_every_method_has_its_word():
    assert get_args(MapMethod) == tuple(METHODS)
    model, image = classifier(), pixels(1, 13, 16, 3)[0]
    quick = [name for name in METHODS if name not in ("ig", "smoothgrad", "rise", "rollout", "gradrollout")]
    found = maps_of(model, image, [1], quick, ["first"])
    assert [each.method for each in found] == quick
    assert [each.layer is None for each in found] == ["layer" not in METHODS[name].takes for name in quick]
    for each in found:
        expected = METHODS[each.method].maps(
            *(model, image[None]), **{key: {"target": 1, "layer": "first"}[key] for key in METHODS[each.method].takes}
        )
        np.testing.assert_allclose(each.values, expected[0], rtol=1e-5, atol=1e-6)


def test_rollout_is_a_method_of_models_with_attention(tmp_path, files):
    inputs = keras.Input((13, 16, 3))
    x = keras.layers.Conv2D(8, 4, strides=4)(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.Add()([x, kzoo.layers.WindowAttention(2, 2)(x)])
    x = keras.layers.Dense(len(NAMES), activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model, image = randomise(keras.Model(inputs, x)), pixels(1, 13, 16, 3)[0]
    plain, first, second = maps_of(model, image, [1, 3], ["rollout", "gradrollout"])
    assert (plain.target, first.target, second.target) == (None, 1, 3)
    for each, gradients in ((plain, False), (first, True), (second, True)):
        (expected,) = kzoo.explain.attention_rollout(model, image[None], each.target, gradients)
        np.testing.assert_allclose(each.values, expected, rtol=1e-5)
    kzoo.with_classes(model, NAMES, STRETCH).save(tmp_path / "model.keras")
    words = [str(tmp_path / "model.keras"), str(files["photo"]), "--output", str(tmp_path / "site")]
    main(["explain", *words, "--method", "rollout", "gradrollout", "--json"])
    told = json.loads((tmp_path / "site" / "maps.json").read_text())["pictures"][0]["maps"]
    assert [(each["method"], each["shape"]) for each in told] == [("rollout", [3, 4]), *[("gradrollout", [3, 4])] * 2]


def test_damaged_weights_are_told():
    model = classifier()
    model.get_layer("last").bias.assign(np.full(5, np.nan))
    with pytest.raises(InvalidValueError, match="Grad-CAM gives numbers that are not finite"):
        maps_of(model, pixels(1, 13, 16, 3)[0], [1])


def test_names_go_before_indices():
    assert find_classes(["1", "b", "2", "1"], ["1", "0", "b"], "it") == [0, 2]
    assert find_classes(["0"], ["one", "two"], "it") == [0]
    for given in ("²", "-1", "2", ""):
        with pytest.raises(UnknownNameError, match="it has no class"):
            find_classes([given], ["one", "two"], "it")


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
    ],
    ids=["desktop", "phone"],
)
def test_in_the_browser(site, options):
    """No error, nothing asked for, no scrolling to the side, every picture shown, a link followed by the keyboard."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, told, asked = browser.new_context(**options).new_page(), [], []
        page.on("console", lambda line: told.append(line.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 22)"}[options["color_scheme"]]
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**#picture2")
        assert told == []
        assert [each for each in asked if not each.startswith(("file:", "data:"))] == []
        browser.close()
