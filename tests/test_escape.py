"""Names from anywhere neither control the terminal nor put HTML into a page, wherever they are drawn."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import fails, make_recipe, pixels
from keras import layers
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import Card
from kzoo.escape import html, markdown, printable, terminal
from kzoo.images import Pixels
from kzoo.images.overlay import draw_overlay
from kzoo.output import Output
from kzoo.report.plots import draw_predictions
from kzoo.report.sheets import draw_sheet

NAMES = ("<img src=x onerror=alert(1)>", "\x1b[31mred\x1b[2J", "a|b", "two\nlines\r", "[bold]x[/bold]", "$\\frac{$")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("größe ≤ 1 %", "größe ≤ 1 %"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc\x00\x9b", "a\\nb\\r\\tc\\x00\\x9b"),
        ("evil\u202egpj.exe\u2028", "evil\\u202egpj.exe\\u2028"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_a_terminal_gets_no_control_characters(text, shown):
    assert printable(text) == shown


def test_only_one_module_escapes_for_rich():
    """Its `terminal` takes control characters out too, which `rich.markup.escape` lets through."""
    package = Path(kzoo.__file__).parent
    using = [path.name for path in package.rglob("*.py") if "rich.markup" in path.read_text(encoding="utf-8")]
    assert using == ["escape.py"]


def test_rich_takes_no_name_for_a_colour():
    from rich.text import Text

    assert Text.from_markup(terminal("[red]\x1b[0m[/red]")).plain == "[red]\\x1b[0m[/red]"


def test_markdown_shows_the_text_as_it_is():
    assert markdown("<b>a & b|c</b>") == "&lt;b&gt;a &amp; b\\|c&lt;/b&gt;"
    assert markdown("[link](x) *y* `z`\n# t") == "\\[link\\]\\(x\\) \\*y\\* \\`z\\`\\\\n\\# t"
    assert (markdown("model_int8", code=True), markdown("a`|b", code=True)) == ("`model_int8`", "a\\`\\|b")


def test_html_shows_the_text_as_it_is_between_tags_and_in_quotes():
    assert html("<b>a & 'b'</b>\n\u202e") == "&lt;b&gt;a &amp; &#x27;b&#x27;&lt;/b&gt;\\n\\u202e"
    assert html('" onload="x') == "&quot; onload=&quot;x"
    assert html("größe 犬 שלום") == "größe 犬 שלום"


def raw(text: str) -> list[str]:
    """What of the names a terminal or a page would obey."""
    return [bad for bad in ("\x1b", "<img", "two\nlines", "\r") if bad in text]


def test_predict_evaluate_and_export_print_names_escaped(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    names = ("<img src=x>", "\x1b[31mred\x1b[2J")
    image = keras.Input((8, 8, 3))
    dense = layers.Dense(2, "softmax")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))))
    model.save("m.keras")
    kzoo.export(model, "m.tflite", card=Card(Output.of_model(model, names)))
    Image.fromarray(pixels(1, 8, 8, 3)[0].astype("uint8")).save("\x1b[2J[bold].png")
    main(["predict", "m.tflite", "\x1b[2J[bold].png"])
    shown = capsys.readouterr().out
    assert raw(shown) in ([], ["<img"])  # HTML is harmless in a terminal
    assert "\\x1b[31mred\\x1b[2J" in shown
    assert "\\x1b[2J[bold].png" in shown
    for name in ("a", "\x1b[31mb"):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.png")
    message = fails(capsys, "evaluate", "m.tflite", "--dataset", "data")
    assert raw(message) in ([], ["<img"])
    assert "31mb" in message


def test_cards_and_reports_of_runs_escape_names(tmp_path):
    from kzoo.tasks.segmentation import Segmentation
    from kzoo.train.card import model_card

    row = dict(file="m.keras", mean_iou=0.5, accuracy=0.5, dice=0.5, size_bytes=1, latency_ms=1.0, max_difference=0.0)
    row |= {f"{kind}_by_class": dict.fromkeys(NAMES, 0.5) for kind in ("iou", "dice")}
    recipe = make_recipe(name="n|<b>", model="unet", dataset="<img src=x>`\n", class_names=NAMES)
    report = {
        "kzoo": "1",
        "recipe": recipe.to_json(),
        "environment": dict(cpu_cores=2, machine="x", tensorflow="2", keras="3", accelerators=0),
        "dataset": dict(name=recipe.data.dataset, classes=list(NAMES), train=1, validation=1, test=1),
        "models": {"keras": row},
        "input_shape": [32, 32, 3],
        "exports": {},
        "pictures": {"predictions.png": "Predictions"},
        "best_epoch": 1,
        "training_seconds": 1,
    }
    card = model_card(recipe, Segmentation(), report)
    assert raw(card) == []
    assert "<b>" not in card
    assert "a\\|b" in card
    assert "&lt;img src=x onerror=alert\\(1\\)&gt;" in card


def test_cards_of_classifiers_escape_names():
    from kzoo.tasks.classification import Classification
    from kzoo.train.card import model_card

    scorer = Classification().scorer(Output("classification", "softmax", len(NAMES), NAMES), Pixels())
    labels = np.maximum(np.arange(len(NAMES)), 1)  # one is wrong, or no temperature would be told
    scorer.add(np.eye(len(NAMES)), {"label": labels})
    row = dict(file="model.keras", **scorer.scores(), size_bytes=1, latency_ms=1.0, max_difference=0.0)
    row["temperature"] = scorer.with_temperature(scorer)
    recipe = make_recipe(name="n|<b>", model="cifar_resnet20", dataset="<img src=x>`\n")
    report = {
        "kzoo": "1",
        "environment": dict(cpu_cores=2, machine="x", tensorflow="2", keras="3", accelerators=0),
        "dataset": dict(name=recipe.data.dataset, classes=list(NAMES), train=1, validation=1, test=1),
        "models": {"keras": row, "folded": row | {"file": "folded.keras"}},
        "input_shape": [32, 32, 3],
        "exports": {},
        "pictures": {"confusion.png": "Confusion matrix"},
        "best_epoch": 1,
        "training_seconds": 1,
    }
    card = model_card(recipe, Classification(), report)
    assert raw(card) == []
    lines = [line for line in card.splitlines() if line.startswith(("| class", "| a\\|b", "| two"))]
    assert len(lines) == 3
    for line in lines:  # one for each class, whose name makes no cell of its own
        assert line.replace("\\|", "").count("|") == 7
    assert "With a temperature of" in card
    assert "![Confusion matrix](confusion.png)" in card


def test_the_report_of_an_export_escapes_the_names_of_files_and_tensors():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(image))
    report = dataclasses.replace(_report(model), path="dir/<img src=x>|.tflite", layers=(("a`|<img>", 0.1),))
    assert raw(report.to_markdown()) == []
    assert json.loads(report.to_json())["path"] == "dir/<img src=x>|.tflite"


def _report(model):
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return kzoo.export(model, f"{directory}/m.tflite")


def test_pictures_are_drawn_with_any_names(tmp_path):
    """Pillow refuses two lines in a legend, and matplotlib would read $ as a formula."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 8, 8, 3), dtype="uint8")
    labels, probabilities = np.arange(6), np.roll(np.eye(6), 1, axis=1)
    draw_predictions(lambda numbers: images[numbers], labels, probabilities, NAMES, tmp_path / "predictions.png")
    masks = random.integers(0, 6, (2, 8, 8)).astype("uint8")
    draw_sheet(images[:2], masks, masks, NAMES, tmp_path / "sheet.png")
    draw_overlay(Image.fromarray(images[0]), masks[0], NAMES).save(tmp_path / "overlay.png")
    assert len(list(tmp_path.iterdir())) == 3
