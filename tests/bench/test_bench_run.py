"""`kzoo bench` on small models, with real files and functions; no time is asserted."""

import json

import keras
import numpy as np
import pytest

import kzoo
from kzoo.bench import subjects
from kzoo.bench.plan import Plan
from kzoo.bench.session import run
from kzoo.bench.subjects import ceilings
from kzoo.commands import bench as command
from kzoo.commands.forms import Bench
from kzoo.console import parse
from kzoo.errors import ExportError, OutputError, UnknownNameError
from kzoo.graph import count_macs

PRODUCT = "64×64 matrix product, 1 thread"
LITERT_PRODUCT = "64×64 matrix product in LiteRT, 1 thread"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small matrices and no rests."""
    monkeypatch.setattr(subjects, "SIDE", 64)
    monkeypatch.setattr("kzoo.bench.turns.REST_S", 0)


@pytest.fixture
def counterpart(monkeypatch):
    """A tiny model in keras.applications that stands beside `small`."""

    def build(weights, input_shape, classifier_activation):
        assert weights is None
        inputs = keras.Input(input_shape)
        x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
        return keras.Model(inputs, keras.layers.Dense(10, classifier_activation)(x))

    monkeypatch.setattr(keras.applications, "Small", build, raising=False)
    monkeypatch.setitem(kzoo.bench.plan.COUNTERPARTS, "small", "Small")


def bench(*args):
    command.run(parse(Bench, args, "kzoo bench"))


def test_everything_is_compared(add, counterpart, tmp_path):
    add("small")
    rival = tmp_path / "rival.tflite"
    kzoo.export(kzoo.build("small", width=3), rival)
    stages = []
    plan = Plan(
        names=("small",),
        precisions=("float32", "int8"),
        threads=(1,),
        batch_size=3,
        rounds=2,
        against=("keras.applications", str(rival)),
    )
    report = run(plan, lambda report, stage: stages.append(stage))
    assert report.problems == []
    (model,) = report.models
    assert (model.name, model.image_shape, model.rounds) == ("small", (32, 32, 3), 2)
    assert model.macs == count_macs(kzoo.build("small")) > 0
    theirs = "Keras' Small"
    expected = {
        "float32, 1 thread": {"time / ceiling", f"speed / {theirs}", f"speed / {rival}"},
        "int8, 1 thread": {"time / ceiling", "speed / float32", f"speed / {theirs}", f"speed / {rival}"},
        f"{theirs} float32, 1 thread": {"time / ceiling"},
        f"{theirs} int8, 1 thread": {"time / ceiling", "speed / float32"},
        f"{rival}, 1 thread": set(),
        PRODUCT: set(),
        LITERT_PRODUCT: {"time / ceiling"},
        "Keras, plain, graph, 1 image": set(),
        "Keras, plain, XLA, 1 image": {"speed / graph"},
        "Keras, folded, graph, 1 image": {"speed / plain"},
        "Keras, folded, XLA, 1 image": {"speed / plain", "speed / graph"},
        "Keras, plain, graph, 3 images": set(),
        "Keras, plain, XLA, 3 images": {"speed / graph"},
        "Keras, folded, graph, 3 images": {"speed / plain"},
        "Keras, folded, XLA, 3 images": {"speed / plain", "speed / graph"},
    }
    assert {row.name: set(row.ratios) for row in model.rows} == expected
    for row in model.rows:
        assert 0 < row.ms.lower <= row.ms.median <= row.ms.upper
        assert all(0 < ratio.lower <= ratio.median <= ratio.upper for ratio in row.ratios.values())
    assert model.timing("int8, 1 thread").size_bytes < model.timing("float32, 1 thread").size_bytes
    assert model.timing(f"{rival}, 1 thread").size_bytes == rival.stat().st_size
    assert model.timing(f"{rival}, 1 thread").partitions == 1
    assert stages[0] == "small: building"
    assert stages[-3:] == ["small: round 1 of 2", "small: round 2 of 2", ""]


def test_what_fails_is_a_row_and_the_others_go_on(add, monkeypatch, tmp_path, capsys):
    add("small")
    add("strange", layer=keras.layers.Lambda(lambda x: x[:, :, ::0]))
    real = subjects.export_each

    def export_each(*args):
        for precision, report in real(*args):
            yield precision, ExportError("no integers today") if precision == "int8" else report

    monkeypatch.setattr(subjects, "export_each", export_each)
    args = ("--precisions", "int8", "float32", "--threads", "1", "--no-keras", "--rounds", "1")
    with pytest.raises(SystemExit) as stop:
        bench("str*", "small", *args, "--output", str(tmp_path / "new"))
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "failed small, int8: no integers today" in shown.out
    assert "failed strange: " in shown.out
    assert "small: 1 rounds" in shown.err
    strange, small = json.loads((tmp_path / "new" / "bench.json").read_text())["models"]
    assert strange["rows"] == []
    assert strange["problem"]
    assert [(row["name"], row["problem"]) for row in small["rows"]] == [
        ("int8", "no integers today"),
        ("float32, 1 thread", ""),
        (PRODUCT, ""),
        (LITERT_PRODUCT, ""),
    ]
    assert small["rows"][1]["ratios"]["time / ceiling"]["median"] > 0
    assert "- small, int8: no integers today" in (tmp_path / "new" / "README.md").read_text()


def test_a_model_that_cannot_be_exported_is_timed_in_keras(add):
    """keras.layers.Lambda of a sort has no counterpart among LiteRT's built-in ops."""
    add("small", layer=keras.layers.Lambda(lambda x: keras.ops.erfinv(x / 1e3)))
    plan = Plan(names=("small",), precisions=("float32", "int8"), threads=(1,), batch_size=1, rounds=1)
    report = run(plan)
    (problem,) = report.problems
    assert problem.startswith("small, files: cannot export")
    assert [row.name for row in report.models[0].rows if row.ms] == [
        PRODUCT,
        LITERT_PRODUCT,
        "Keras, plain, graph, 1 image",
        "Keras, plain, XLA, 1 image",
        "Keras, folded, graph, 1 image",
        "Keras, folded, XLA, 1 image",
    ]


def test_mistakes_are_found_before_any_work(add, monkeypatch, tmp_path):
    add("small")
    monkeypatch.setattr("kzoo.bench.session.build", None)  # nothing is built
    with pytest.raises(UnknownNameError, match="no model matches 'smal'; did you mean 'small'"):
        bench("smal", "--output", str(tmp_path / "new"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        bench("small", "--output", str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_products_are_held_to_their_threads(monkeypatch):
    import threadpoolctl

    used = []
    blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
    monkeypatch.setattr(np, "matmul", lambda a, b, out: used.append({each["num_threads"] for each in blas.info()}))
    for subject in ceilings((1, 2)):
        subject.run()
    assert used == [{1}, {2}]
    assert [subject.macs for subject in ceilings((1, 2))] == [64**3] * 2


def test_integer_files_take_integers(add, tmp_path):
    """What is timed of an int8 file is its run alone: its input is set before, in its own type."""
    add("small")
    images = subjects.random_images(8, (32, 32, 3))
    kzoo.export(kzoo.build("small"), tmp_path / "a.tflite", "int8", images)
    invoke = subjects._invocation(tmp_path / "a.tflite", 1)
    assert invoke.__self__.get_input_details()[0]["dtype"] is np.int8
    before = invoke.__self__.get_tensor(invoke.__self__.get_output_details()[0]["index"]).copy()
    invoke()
    after = invoke.__self__.get_tensor(invoke.__self__.get_output_details()[0]["index"])
    assert (before != after).any()
