"""The parts of a page behind its maps: scores, the check, attention, feature maps, the card, and a second model."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import Card
from kzoo.explain import explained_layer, gaussian_maps, judge_maps, random_maps
from kzoo.explain.facts import facts_of
from kzoo.explain.interior import inside_of, spread, statistics_of, telling_layers
from kzoo.explain.methods import maps_of
from kzoo.explain.randomisation import rank_correlation
from kzoo.explain.sections import trust_section
from kzoo.explain.trust import STEPS, trust_of
from kzoo.images import Pixels
from kzoo.output import Output

NAMES = ("tit", "robin", "<b>wren</b>")
STRETCH = Pixels("stretch")


def gated(side: int = 12) -> keras.Model:
    """A small classifier with gates of channels and places, and weights between all places."""
    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    x = keras.layers.Conv2D(20, 3, padding="same", activation="relu", name="first")(x)
    x = kzoo.layers.CBAM(reduction=2, name="gates")(x)
    x = kzoo.layers.NonLocal(name="looks")(keras.layers.AveragePooling2D(2)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, keras.layers.Dense(len(NAMES), activation="softmax")(x)))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("more")
    made = {name: folder / f"{name}.keras" for name in ("model", "small", "other")}
    model = gated()
    kzoo.with_classes(model, NAMES, STRETCH).save(made["model"])
    kzoo.with_classes(gated(8), NAMES[::-1], STRETCH).save(made["small"])
    kzoo.with_classes(gated(), ("tit", "robin", "owl"), STRETCH).save(made["other"])
    made["lite"] = folder / "lite.tflite"
    kzoo.export(model, made["lite"], card=Card(Output("classification", "softmax", len(NAMES), NAMES), STRETCH))
    for index in range(2):
        made[f"photo{index}"] = folder / f"photo{index}.png"
        Image.fromarray(pixels(2, 20, 30, 3)[index].astype("uint8")).save(made[f"photo{index}"])
    return made


def explain(files, folder: Path, *words: str) -> dict:
    main(["explain", *(str(files.get(word, word)) for word in words), "--output", str(folder)])
    return json.loads((folder / "maps.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pair(files, tmp_path_factory) -> tuple[Path, dict]:
    """A page of two pictures and two models of another size and another order of classes."""
    folder = tmp_path_factory.mktemp("pair") / "site"
    return folder, explain(files, folder, "model", "photo0", "photo1", "--compare", "small", "--query", "7", "2")


def test_scores_are_those_of_judge_maps_beside_the_baselines():
    model, images, targets = gated(), pixels(3, 12, 12, 3), [2, 0, 1]
    maps = [maps_of(model, image, [target, 1], ["gradcam"]) for image, target in zip(images, targets, strict=True)]
    (found,) = trust_of(model, Output.of_model(model), images, maps, targets)
    chosen = np.stack([each[0].values for each in maps])
    kinds = {"map": chosen, "random": random_maps(chosen.shape), "gaussian": gaussian_maps(chosen.shape)}
    expected = {what: judge_maps(model, images, each, targets, steps=STEPS).measures for what, each in kinds.items()}
    for measure, sign in (("deletion", -1), ("insertion", 1)):
        for what in kinds:
            np.testing.assert_allclose(
                found.scores[measure][what].each, expected[what][measure].each, rtol=1e-4, atol=1e-6
            )
        for what in ("random", "gaussian"):
            better = sign * (expected["map"][measure].each - expected[what][measure].each)
            np.testing.assert_allclose(found.gains[measure][what].each, better, rtol=1e-3, atol=1e-5)
    assert found.pictures == 3
    assert found.check is not None


def test_a_map_that_stays_alike_is_flagged(monkeypatch):
    model, image = gated(), pixels(1, 12, 12, 3)

    def edges(model, images, target=None, layer=None):
        return np.asarray(images, "float32").mean(axis=-1)

    from kzoo.explain.methods import METHODS, Method

    monkeypatch.setitem(METHODS, "gradcam", Method("Edges", "Edges.", edges))
    maps = [maps_of(model, image[0], [1], ["gradcam"])]
    (found,) = trust_of(model, Output.of_model(model), image, maps, [1])
    assert found.check is not None
    assert found.check.alike
    assert "Do not trust this map." in "".join(trust_section([found]))


def test_the_inside_is_what_the_functions_give():
    model, image = gated(), pixels(1, 12, 12, 3)[0]
    found = inside_of(model, image, (7, 2))
    expected = kzoo.attention_maps(model, image[None], (7, 2))
    assert list(found.attention) == list(expected)
    for path, values in expected.items():
        np.testing.assert_allclose(found.attention[path], values[0], rtol=1e-5)
    assert telling_layers(model) == ["first", explained_layer(model)]
    values = kzoo.activations(model, image[None], "first")["first"][0]
    most, count = found.channels["first"]
    assert (len(most), count) == (16, 20)
    strength = np.abs(values).mean(axis=(0, 1))
    assert strength[most].min() >= np.delete(strength, most).max()
    np.testing.assert_array_equal(found.features["first"], values[..., most])
    assert statistics_of(model, image, 1) == kzoo.explain.layer_statistics(model, image[None], 1)


def test_a_model_without_attention_has_no_such_part(files):
    inputs = keras.Input((9, 7, 1))
    x = keras.layers.Conv2D(3, 3)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    assert inside_of(model, pixels(1, 9, 7, 1)[0]).attention == {}


def test_layers_are_spread_from_the_first_to_the_last():
    assert spread([str(number) for number in range(10)], 4) == ["0", "3", "6", "9"]


def test_second_model_beside_the_first(pair, files):
    folder, told = pair
    assert sorted(told["files"]) == sorted(path.name for path in folder.iterdir())
    first, second = (keras.models.load_model(files[name]) for name in ("model", "small"))
    for picture in told["pictures"]:
        other = picture["compared"]
        images = [STRETCH.read(picture["picture"], (side, side, 3))[None] for side in (12, 8)]
        for a, b, pairwise in zip(picture["maps"], other["maps"], other["correlations"], strict=True):
            assert a["target"]["class"] == b["target"]["class"]
            assert a["target"]["index"] == 2 - b["target"]["index"]
            maps = [
                kzoo.grad_cam(model, image, each["target"]["index"])[0]
                for model, image, each in zip((first, second), images, (a, b), strict=True)
            ]
            enlarged = np.asarray(Image.fromarray(maps[1]).resize(maps[0].shape[::-1], Image.Resampling.BILINEAR))
            assert pairwise["correlation"] == pytest.approx(rank_correlation(maps[0], enlarged), abs=2e-3)
        assert picture["inside"]["query"] == [7, 2]
        kinds = [each["kind"] for each in picture["inside"]["attention"]]
        assert sorted(kinds) == ["channel gates", "spatial gates", "weights"]
        assert all((folder / each["file"]).is_file() for each in picture["inside"]["features"])
    assert told["compared"]["model"].endswith("small.keras")
    assert told["trust"][0]["pictures"] == told["compared"]["trust"][0]["pictures"] == 2
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>wren" not in html
    assert "&lt;b&gt;wren" in html


def test_keras_model_and_its_file(files, tmp_path):
    told = explain(files, tmp_path / "site", "model", "photo0", "--compare", "lite")
    (picture,) = told["pictures"]
    assert {each["method"] for each in picture["maps"] + picture["compared"]["maps"]} == {"occlusion"}
    assert "randomisation" in told["trust"][0]
    assert "randomisation" not in told["compared"]["trust"][0]
    assert "inside" not in picture["compared"]


def test_maps_only_leaves_the_rest_out(files, tmp_path):
    told = explain(files, tmp_path / "site", "model", "photo0", "--maps-only")
    assert told["trust"] == []
    assert "inside" not in told["pictures"][0]
    assert "Are the maps any good?" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_card_tells_what_files_carry(files):
    model = keras.models.load_model(files["model"])
    told = facts_of(str(files["model"]), model, Output.of_model(model), STRETCH, (12, 12, 3))
    assert told["parameters"] == f"{model.count_params():,}"
    assert told["classes"] == f"3: {', '.join(NAMES)}"
    lite = kzoo.edge.LiteRTModel(files["lite"])
    told = facts_of(str(files["lite"]), lite, Output.of_file(lite), STRETCH, (12, 12, 3))
    assert told["precision"] == "float32"
    assert "license" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compare", "other"), "has no class '<b>wren</b>', which"),
        (("--compare", "lite", "--method", "gradcam"), "is a LiteRT file, which has no gradients"),
        (("--query", "12", "0"), "the query 12 0 must be a pixel, row and column, of images of 12×12"),
        (("--query", "1", "0", "--maps-only"), "--query is of attention, which --maps-only leaves out"),
    ],
)
def test_mistakes_are_one_line(words, message, files, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        explain(files, tmp_path / "site", "model", "photo0", *words)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def test_two_models_in_the_browser(pair, width, scheme):
    """No error and no scrolling to the side, every picture shown, and tables that the keyboard reaches."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
        page, told = browser.new_context(**options).new_page(), []
        page.on("console", lambda line: told.append(line.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto((pair[0] / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.alt && image.naturalWidth > 0)")
        assert page.evaluate("[...document.querySelectorAll('.table')].every(each => each.tabIndex === 0)")
        assert told == []
        browser.close()
