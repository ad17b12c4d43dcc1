"""What `kzoo page` writes and refuses; no npm package and no browser is needed."""

import base64
import hashlib
import json
import os
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import Card, LiteRTModel
from kzoo.errors import InvalidValueError, OutputError
from kzoo.output import Output
from kzoo.page import runtime, write_page


@pytest.fixture
def package(tmp_path) -> Path:
    """Stand-ins for the npm packages, with a line in each file."""
    for name, files in runtime.FILES.items():
        for file in files:
            path = tmp_path / "node_modules" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"name": name, "version": runtime.VERSION}))
    return tmp_path / "node_modules" / runtime.CORE


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_page_is_whole(files, package, pictures, tmp_path, capsys):
    site = tmp_path / "site"
    main(
        [
            "page",
            str(files["classes"]),
            "--output",
            str(site),
            "--runtime",
            str(package),
            "--examples",
            str(pictures["turned6.jpg"]),
        ]
    )
    assert "works offline" in capsys.readouterr().out
    copied = {f"litert/{name}/{file}" for name, each in runtime.FILES.items() for file in each}
    ours = {"index.html", "kzoo.js", "model.tflite", "model.tflite.json", "page.json"}
    assert listing(site) == {*ours, *copied, "examples/1.png", "examples/1_pixels.png"}
    for name in ("", ".json"):
        assert (site / f"model.tflite{name}").read_bytes() == Path(f"{files['classes']}{name}").read_bytes()
    told = json.loads((site / "page.json").read_text())
    assert set(told["files"]) == listing(site)
    assert told["runtime"] == {"version": "2.5.3", "wasm": "./litert/@litertjs/core/wasm/", "network": False}
    assert not list(tmp_path.glob(".site*"))


@pytest.mark.parametrize("kind", ["classes", "grey", "map", "heat"])
def test_the_numbers_of_an_example_are_those_of_the_file(kind, files, pictures, tmp_path):
    write_page(files[kind], tmp_path / "site", examples=[pictures["turned6.jpg"]])
    (example,) = json.loads((tmp_path / "site/page.json").read_text())["examples"]
    assert example["name"] == "turned6"
    with Image.open(tmp_path / "site" / example["picture"]) as stored:
        assert stored.size == (90, 130)  # upright
        assert stored.info == {}  # neither place nor camera, nor profile of its colours
        lite, card = LiteRTModel(files[kind]), kzoo.edge.read_card(files[kind])
        pixels = card.pixels.apply(stored, lite.input_shape[1:])
    with Image.open(tmp_path / "site" / example["pixels"]) as stored:
        np.testing.assert_array_equal(np.asarray(stored).reshape(pixels.shape), pixels)
    outputs = lite.predict_each(pixels[None])
    if kind == "heat":
        np.testing.assert_allclose(example["heatmap"], outputs["heatmap"].ravel(), rtol=1e-6)
    expected = card.output.probabilities(outputs[card.answer or next(iter(outputs))][0])
    if kind == "map":
        expected = expected[:: example["step"], :: example["step"]]
    np.testing.assert_allclose(example["probabilities"], expected.ravel(), rtol=1e-6)


def test_of_a_large_map_some_pixels_are_kept(files, tmp_path, monkeypatch):
    monkeypatch.setattr("kzoo.page.examples.MOST_NUMBERS", 500)
    write_page(files["map"], tmp_path / "site")
    (example,) = json.loads((tmp_path / "site/page.json").read_text())["examples"]
    assert example["step"] == 4  # 10 × 14 × 3 numbers of 40 × 56 × 3
    assert len(example["probabilities"]) == 10 * 14 * 3
    assert example["name"] is None  # which was drawn


def test_a_large_example_is_made_smaller(files, tmp_path):
    Image.new("RGB", (2000, 1000), "red").save(tmp_path / "wide.png")
    write_page(files["classes"], tmp_path / "site", examples=[tmp_path / "wide.png"])
    with Image.open(tmp_path / "site/examples/1.png") as stored:
        assert stored.size == (640, 320)


def test_names_and_colours_are_data_in_a_page(files, tmp_path):
    told = json.loads(Path(f"{files['classes']}.json").read_text())
    model = shutil.copy(files["classes"], tmp_path / "m.tflite")
    (tmp_path / "m.tflite.json").write_text(json.dumps(told | {"model": "</title><script>$policy"}))
    write_page(model, tmp_path / "site")
    index = (tmp_path / "site/index.html").read_text()
    assert "<title>&lt;/title&gt;&lt;script&gt;$policy</title>" in index
    write_page(files["map"], tmp_path / "map")
    assert (
        json.loads((tmp_path / "map/page.json").read_text())["colours"] == kzoo.images.overlay.colours("abc").tolist()
    )


@pytest.mark.parametrize("copied", [True, False])
def test_the_policy_of_a_page_lets_nothing_out(copied, files, package, tmp_path):
    page = write_page(files["classes"], tmp_path / "site", runtime=package if copied else None)
    assert page.needs_network is not copied
    index = (tmp_path / "site/index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', index)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    mirror = [] if copied else ["https://cdn.jsdelivr.net"]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["connect-src"].split() == ["'self'", *mirror]
    inline = re.findall(r"<(?:script|style)(?: type=\"importmap\")?>(.*?)</", index, re.DOTALL)
    assert len(inline) == 3
    for text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    packages = json.loads(re.search(r'importmap">(.*?)</script>', index)[1])["imports"]
    place = "./litert/@litertjs/core/" if copied else "https://cdn.jsdelivr.net/npm/@litertjs/core@2.5.3/"
    assert packages["@litertjs/core"] == f"{place}dist/index.js"


def test_a_page_is_replaced_and_nothing_else(files, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    write_page(files["map"], site)  # an empty folder is no loss
    write_page(files["classes"], site)
    assert json.loads((site / "model.tflite.json").read_text())["model"] == "birds"
    before = {name: (site / name).read_bytes() for name in listing(site)}
    (site / "CNAME").write_text("birds.example")
    with pytest.raises(OutputError, match="holds CNAME, which kzoo page did not write; choose another --output"):
        write_page(files["map"], site)
    (site / "CNAME").unlink()
    assert {name: (site / name).read_bytes() for name in listing(site)} == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="holds other files than those of kzoo page; choose another --output"):
        write_page(files["map"], other)
    assert (other / "thesis.tex").read_text() == "years"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is in the way; choose another --output"):
        write_page(files["map"], tmp_path / "file")


def test_what_fails_on_the_way_leaves_the_old_page(files, tmp_path, monkeypatch):
    site = tmp_path / "site"
    write_page(files["classes"], site)
    before = {name: (site / name).read_bytes() for name in listing(site)}

    def fail(*_, **__):
        raise KeyboardInterrupt

    def fail_to_place(source, target):
        replace(source, target) if source.name != "page" else fail()

    replace = os.replace
    for function, fault in (("json.dumps", fail), ("os.replace", fail_to_place)):
        with monkeypatch.context() as patch:
            patch.setattr(f"kzoo.page.writing.{function}", fault)
            with pytest.raises(KeyboardInterrupt):
                write_page(files["map"], site)
    assert {name: (site / name).read_bytes() for name in listing(site)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def say(package: Path, **changes) -> None:
    path = package / "package.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


RUNTIMES = {
    "another version": (
        lambda core: say(core, version="2.5.2"),
        r"is @litertjs/core 2.5.2, and pages are made for 2.5.3",
    ),
    "another version below": (
        lambda core: say(core.parent / "wasm-utils", version="3"),
        r"wasm-utils is @litertjs/wasm-utils 3, ",
    ),
    "another package": (lambda core: say(core, name="react"), "is not the npm package @litertjs/core"),
    "no package": (shutil.rmtree, "is not the npm package @litertjs/core"),
    "no second package": (
        lambda core: shutil.rmtree(core.parent / "wasm-utils"),
        "is not the npm package @litertjs/wasm-utils",
    ),
    "a file lacks": (
        lambda core: (core / "wasm/litert_wasm_internal.wasm").unlink(),
        "lacks wasm/litert_wasm_internal.wasm",
    ),
    "no JSON": (lambda core: (core / "package.json").write_text("{"), "no valid JSON"),
}


@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_runtime_that_does_not_fit_is_one_line(kind, files, package, tmp_path, capsys):
    spoil, message = RUNTIMES[kind]
    spoil(package)
    with pytest.raises(SystemExit) as stopped:
        main(["page", str(files["classes"]), "--output", str(tmp_path / "site"), "--runtime", str(package)])
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told.count("\n") == 1
    assert re.search(message, told)
    assert not (tmp_path / "site").exists()


def without_card(files, tmp_path) -> Path:
    return Path(shutil.copy(files["classes"], tmp_path))


def with_card_of_another(files, tmp_path) -> Path:
    shutil.copy(f"{files['map']}.json", tmp_path / "classes.tflite.json")
    return without_card(files, tmp_path)


def with_old_card(files, tmp_path) -> Path:
    told = json.loads(Path(f"{files['classes']}.json").read_text())
    output = {"shape": [1, 6], "dtype": "float32", "values": "probabilities"}
    old = {"kzoo_card": 1, "sha256": told["sha256"], "input": {"crop": 1, "interpolation": "bilinear"}}
    (tmp_path / "classes.tflite.json").write_text(json.dumps(old | {"output": output, "classes": None}))
    return without_card(files, tmp_path)


FILES = {
    "no card": (
        without_card,
        r"has no card \(classes.tflite.json\), which tells a page what to feed it; export",
    ),
    "a card of another file": (
        with_card_of_another,
        r"is the card of another file than .*; remove it or export again",
    ),
    "an old card": (with_old_card, r"is of an old kzoo; export the model again"),
    "no LiteRT file": (lambda _, folder: folder / "model.keras", r"model.keras is no .tflite file"),
    "an absent file": (lambda _, folder: folder / "nothing.tflite", r"cannot read .*nothing.tflite"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_not_known_is_one_line(kind, files, tmp_path):
    make, message = FILES[kind]
    with pytest.raises(InvalidValueError, match=message) as caught:
        write_page(make(files, tmp_path), tmp_path / "site")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "site").exists()


def put(*way_and_value):
    """Changes one value in a card."""

    def change(card: dict) -> None:
        *way, last, value = way_and_value
        for name in way:
            card = card[name]
        card[last] = value

    return change


CARDS = {
    "another shape": (
        "bytes",
        put("input", "shape", [1, 64, 64, 3]),
        r"the input has the shape \[1, 64, 64, 3\], ",
    ),
    "another type": ("bytes", put("input", "dtype", "float32"), "the input has the dtype float32, and the file says"),
    "no number": ("bytes", put("input", "scale", "x"), "the input has the scale x, and the file says "),
    "another scale": (
        "bytes",
        put("output", "scale", 0.5),
        "the output has the scale 0.5, and the file says 0.0039",
    ),
    "no input": ("classes", put("input", None), "the input has the shape None, and the file says "),
    "other maps": ("heat", put("outputs", "heatmap", "shape", [1, 2, 2, 6]), "the output 'heatmap' has the shape"),
    "another answer": (
        "heat",
        put("answer", "heatmap"),
        r"is of 6 units for classification, and the file gives \(1, ",
    ),
    "fewer classes": (
        "classes",
        lambda card: card["output"].update(units=3, class_names=None),
        r"is of 3 units for classification, and the file gives \(1, 6\); export the model again",
    ),
    "no measurement": ("classes", put("measured", {"accuracy": {"value": "high"}}), "measured=.* is not accepted"),
    "half a measurement": (
        "classes",
        put("measured", {"accuracy": {"value": 1}}),
        "accuracy.*lacks value or images",
    ),
    "no sentences": ("classes", put("how", "Look at it."), "how='Look at it.' is not accepted"),
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_that_was_changed_is_one_line(kind, files, tmp_path):
    """kzoo.js takes the card's word for what the file takes and gives."""
    source, change, message = CARDS[kind]
    card = json.loads(Path(f"{files[source]}.json").read_text())
    change(card)
    model = shutil.copy(files[source], tmp_path / "m.tflite")
    (tmp_path / "m.tflite.json").write_text(json.dumps(card))
    with pytest.raises(InvalidValueError, match=message) as caught:
        write_page(model, tmp_path / "site")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "site").exists()


def test_a_folder_of_others_is_not_searched(files, tmp_path, monkeypatch):
    """It may be somebody's home, or /."""
    (tmp_path / "other").mkdir()
    for name in "abc":
        (tmp_path / "other" / name).write_text("")
    walk = Path.rglob

    def first_alone(folder, pattern):
        yield next(walk(folder, pattern))
        pytest.fail("looked for more")

    monkeypatch.setattr(Path, "rglob", first_alone)
    with pytest.raises(OutputError, match="holds other files than those of kzoo page"):
        write_page(files["map"], tmp_path / "other")


CLASSES = Output("classification", "softmax", 6)
SHAPES = {
    "integers": ({"dtype": np.int8}, {}, CLASSES, r"takes int8, and LiteRT.js has no such tensors; .* --io float32"),
    "16 bits out": ({}, {"dtype": np.int16}, CLASSES, r"gives int16, and LiteRT.js has no such tensors"),
    "several images": ({"shape": (4, 8, 8, 3)}, {}, CLASSES, r"takes \(4, 8, 8, 3\); a page feeds one picture"),
    "five channels": ({"shape": (1, 8, 8, 5)}, {}, CLASSES, r"takes \(1, 8, 8, 5\); a page feeds one picture"),
    "a sequence": (
        {},
        {"shape": (1, 8, 24)},
        Output("unknown", "unknown", 24),
        r"gives \(1, 8, 24\); a page shows classes, or a class for each pixel",
    ),
    "a coarse map": (
        {},
        {"shape": (1, 4, 4, 6)},
        Output("segmentation", "softmax", 6),
        r"gives maps of 4×4 for images of 8×8; a page shows maps of the size of the image",
    ),
    "a heat map of others": (
        {},
        {},
        CLASSES,
        r"gives a heat map of shape \(1, 3, 3, 5\); one of \(1, height, width, 6\)",
    ),
    "unknown values": ({}, {}, Output("classification", "unknown", 6), r"does not tell whether its outputs are"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_file_that_a_page_cannot_show_is_one_line(kind, files, tmp_path, monkeypatch):
    taken, given, output, message = SHAPES[kind]

    def lite(content, answer):
        told = {"shape": (1, 8, 8, 3), "dtype": np.float32} | taken
        answer = {"shape": (1, 6), "dtype": np.float32} | given
        heat = {"shape": (1, 3, 3, 5), "dtype": np.float32}
        return types.SimpleNamespace(input=told, output=answer, outputs={"heatmap": heat}, input_shape=told["shape"])

    monkeypatch.setattr("kzoo.page.writing.LiteRTModel", lite)
    monkeypatch.setattr("kzoo.page.writing.read_card", lambda path: Card(output))
    with pytest.raises(InvalidValueError, match=message) as caught:
        write_page(files["classes"], tmp_path / "site")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "site").exists()


def test_an_example_that_is_no_picture_is_one_line(files, tmp_path):
    (tmp_path / "cat.jpg").write_text("no picture")
    with pytest.raises(InvalidValueError, match=r"cat.jpg cannot be read as an image"):
        write_page(files["classes"], tmp_path / "site", examples=[tmp_path / "cat.jpg"])
    assert not (tmp_path / "site").exists()


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(digits[start : start + 2], 16) for start in (0, 2, 4)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXTS = [  # what is written on what
    *((ink, paper) for ink in ("ink", "faint", "button", "good", "bad") for paper in ("paper", "card")),
    ("on-button", "button"),
    ("bad", "bad-paper"),
    ("faint", "track"),
]
EDGES = [("line", "card"), ("line", "paper"), ("bar", "card"), ("bar", "track"), ("button", "card")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme):
    schemes = re.findall(r":root \{(.*?)\}", Path(kzoo.page.writing.TEMPLATE).read_text(), re.DOTALL)
    colours = [dict(re.findall(r"--([\w-]+): (#\w+);", text)) for text in schemes][scheme == "dark"]
    low = {
        f"{one} on {other}": ratio for one, other in TEXTS if (ratio := contrast(colours[one], colours[other])) < 4.5
    }
    low |= {
        f"{one} by {other}": ratio for one, other in EDGES if (ratio := contrast(colours[one], colours[other])) < 3
    }
    assert low == {}


def test_static_files_stand_beside_the_code():
    assert kzoo.page.SCRIPT.is_file()
    assert kzoo.page.writing.TEMPLATE.is_file()


def test_a_file_within_its_own_page_may_be_shown_again(files, tmp_path):
    site = tmp_path / "site"
    write_page(files["classes"], site)
    write_page(site / "model.tflite", site)
    assert kzoo.edge.read_card(site / "model.tflite") == kzoo.edge.read_card(files["classes"])
