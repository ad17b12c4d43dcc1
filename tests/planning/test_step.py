"""The step that is planned is the one that is trained, and what is kept of it is found again."""

import dataclasses
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import kzoo
from kzoo.errors import DatasetError, KzooError
from kzoo.planning import kept
from kzoo.planning.order import Order, carry_out
from kzoo.planning.roofline import Program
from kzoo.planning.sizes import size_of
from kzoo.planning.topology import topology_of
from kzoo.recipe import load_recipe

pytest.importorskip("jax")
PROGRAM = Program(8, 1, 1, 1.0, 2.0, 3, 4, 5, 6, 7, None, 8.0, 9, 10, 11)
NARROW = dict(depths=(1, 1, 1), widths=(4, 8, 8))
SMALL = f"""
from kzoo.train import Data, Optimizer, Recipe, Schedule
RECIPE = Recipe(
    name="small",
    model="cifar_resnet20",
    model_options={NARROW},
    data=Data("cifar10"),
    optimizer=Optimizer("sgd", clip_norm=1.0),
    schedule=Schedule(epochs=2, batch_size=16),
)
"""


@pytest.fixture
def order(tmp_path):
    recipe = tmp_path / "small.py"
    recipe.write_text(SMALL)

    def make(topology="cpu", *settings, **changes):
        given = dict(images=None, classes=None, thorough=False, verify=False, cache=str(tmp_path / "kept"))
        return Order(recipe=str(recipe), settings=list(settings), topology=topology, **given | changes)

    return make


def test_a_plan_for_cards_that_are_not_here_counts_what_each_of_them_needs(order, tmp_path):
    answer = carry_out(order("a100:4", "--batch-size", "64"), topology_of("a100:4"))
    program = answer["program"]
    assert (program["batch_size"], program["devices"], answer["chips"], answer["estimated"]) == (64, 4, 4, True)
    assert answer["training_images"] == 45_000  # a tenth of the 50,000 is held out
    weights = 4 * program["parameters"]
    # SGD keeps the momentum of each weight, and batch normalisation has statistics beside its weights
    assert weights < program["optimizer_bytes"] < weights + 200
    assert weights < program["parameter_bytes"] < 1.1 * weights
    # besides a share of the batch, each device has all weights; the gradients of all of them are summed over devices
    images = 16 * 32 * 32 * 3 * 4
    state = program["parameter_bytes"] + program["optimizer_bytes"]
    assert program["argument_bytes"] == pytest.approx(state + images + 16 * 10 * 4, rel=0.01)
    assert weights <= program["reduced_bytes"] < 1.2 * weights
    # three passes of two operations for each multiply-add but the first convolution's two, and normalisation
    assert 1.0 < program["flops"] / (6 * 16 * kzoo.describe("cifar_resnet20", **NARROW).macs) < 1.1
    assert len(list((tmp_path / "kept").glob("*.json"))) == 2  # programs of two batch sizes
    (again,) = answer["others"]
    assert again["batch_size"] == 128
    assert 1.8 < again["flops"] / program["flops"] < 2.05


@pytest.mark.skipif(find_spec("libtpu") is None, reason='libtpu is not installed: pip install -e ".[plan]"')
def test_a_plan_for_a_tpu_compiles_for_it(order):
    answer = carry_out(order("v5e:2x2", "--precision", "mixed_bfloat16"), topology_of("v5e:2x2"))
    assert (answer["program"]["devices"], answer["versions"]["device"]) == (4, "TPU v5 lite")
    assert 0 < answer["program"]["temporary_bytes"] < answer["limits"]["memory"] == 17.2e9


def test_what_is_not_known_without_reading_is_asked_for():
    assert size_of("imagenet2012", None, None).images == 1_281_167
    assert size_of("imagenet2012:5.1.0", 1000, None).images == 1000
    with pytest.raises(DatasetError, match="--images and --classes"):
        size_of("photos/", 1000, None)
    assert size_of("photos/", 1000, 7) == dataclasses.replace(size_of("cifar10", 1000, 7), side=None)


def test_a_program_is_found_by_what_it_depends_on(tmp_path):
    recipe, made = load_recipe("cifar10_resnet20"), []

    def make():
        made.append(1)
        return PROGRAM

    def ask(recipe, **others):
        return kept.kept(tmp_path, kept.key_of(recipe, topology="v5e:2x4", **others), make)

    assert ask(recipe) == ask(recipe.replace(epochs=3, seed=7)) == PROGRAM
    assert len(made) == 1, "settings that make no other program"
    ask(recipe.replace(batch_size=256))
    ask(recipe.replace(optimizer="adamw"))
    ask(recipe, thorough=True)
    assert len(made) == 4
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text()[:-40])
    ask(recipe)
    assert len(made) == 5, "a damaged file is made anew"


HEAVY = ("keras", "jax", "tensorflow")
MISTAKES = {
    "": "a recipe comes first: kzoo plan RECIPE;",
    "--batch-size 64": "a recipe comes first: kzoo plan RECIPE --batch-size 64;",
    "cifar10_resnet": "unknown recipe 'cifar10_resnet'; did you mean",
    "quickstart --topology v5x:2x4": "no topology 'v5x:2x4'",
    "quickstart --topology v5e:2x2x2": "v5e has 2 sizes, such as v5e:4x8",
    "quickstart --topology v5e": "v5e has 2 sizes",
    "quickstart --topology h100:2x4": "say how many cards",
    "quickstart --epoch 3": "unknown option --epoch",
    "quickstart --price -1": "--price -1.0 must be above zero",
    "quickstart --topology v5e:4x8": 'needs libtpu, which is not installed; pip install -e ".[plan]"',
}


def test_mistakes_are_told_in_one_line_before_anything_heavy_is_loaded():
    code = f"""
import contextlib, importlib.util, sys
from kzoo.cli import main
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "libtpu" else find(name, *rest)
for words in {list(MISTAKES)}:
    try:
        main(["plan", *words.split()])
    except SystemExit as stop:
        print(f"exit {{stop.code}}", file=sys.stderr)
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True, timeout=100
    )
    *lines, loaded = done.stderr.splitlines()
    assert loaded == "[]"
    assert lines[1::2] == ["exit 2"] * len(MISTAKES)
    for line, message in zip(lines[::2], MISTAKES.values(), strict=True):
        assert message in line


def test_how_to_install_what_compiles_is_said_in_one_way():
    wanted, root = 'pip install -e ".[plan]"', Path(__file__).parents[2]
    for page in ("README.md", "kzoo/planning/README.md", "recipes/studies/planned.py", "kzoo/planning/order.py"):
        assert wanted in (root / page).read_text()


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    from kzoo.planning.worker import check_divided

    check_divided(32, 8, "h100:8")
    with pytest.raises(ValueError, match="30 is not divided by the 8 devices of h100:8; take --batch-size 32"):
        check_divided(30, 8, "h100:8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "settings", "message"),
    [
        ("h100:8", ["--batch-size", "30"], "30 is not divided by the 8 devices"),
        ("cpu", ["--batch-size", "many"], "invalid"),
        ("cpu", ["--model", "resnet5"], "unknown model 'resnet5'"),
        ("cpu", ["--dataset", "imagenet2012"], "images of imagenet2012 differ in size; say which to plan for"),
        ("cpu", ["--dataset", "photos/"], "give --images and --classes"),
    ],
)
def test_what_the_process_finds_wrong_is_one_line(order, topology, settings, message):
    with pytest.raises(KzooError, match=message):
        carry_out(order(topology, *settings), topology_of(topology))
