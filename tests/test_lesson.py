"""The lesson: each step has its equation, code, figure and claims, and fails where a claim is not true."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image

from kzoo.errors import BackendError, InvalidValueError, WeightsError
from kzoo.recipe import recipe_dir

LESSON = recipe_dir() / "lesson"
SAVED_MODELS = LESSON.parents[1] / "saved_models"
FIGURES = SAVED_MODELS / "lesson"
STEPS = {int(path.name[:2]): path for path in sorted(LESSON.glob("[0-9][0-9]_*.py"))}
CHEAP = (3, 7, 10, 11, 12, 13, 14, 15)  # seconds together; no datasets, no trained models
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])")

# step -> text that stands there once, and what takes its place, so that a claim is not true any more
FAULTS = {
    1: ("kernel[:, :, 0, 0]", "kernel[::-1, ::-1, 0, 0]"),
    2: ('"he_normal" if activation == "relu"', '"random_normal" if activation == "relu"'),
    3: ("layers.Conv2D(1, size, kernel", 'layers.Conv2D(1, size, padding="same", kernel'),
    4: ('"cifar_plain56")}', '"cifar_plain20")} | {"cifar_plain56": lesson.training_losses("cifar_plain20")}'),
    5: ("if residual else z", "if False else z"),
    6: ("beta - a * mean", "beta + a * mean"),
    7: ("layers.MaxPooling2D(2)", "layers.AveragePooling2D(2)"),
    8: ("CosineDecay(3e-2,", "CosineDecay(3e-6,"),
    9: ("features.max(axis=-1)", "features.min(axis=-1)"),
    10: ("[[-1.0, 1.0]]", "[[1.0, -1.0]]"),
    11: ("column(places), column(samples)", "column(places[::-1]), column(samples)"),
    12: ("width=1.0", "width=1.5"),
    13: ("products / 256**0.5", "products / 256**0.1"),
    14: ("shift_size=4", "shift_size=2"),
    15: ("NeighborhoodAttention(num_heads=1, kernel_size=7)", "WindowAttention(num_heads=1, window_size=7)"),
    16: ('"fpn_p4_lateral"] + coarser', '"fpn_p4_lateral"] - coarser'),
    17: ("(8 * 8)", "(8 * 7)"),
}


def cells(path: Path) -> list[tuple[bool, str]]:
    """(whether it is text, what stands in it) of each cell."""
    parts = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(kind.strip() == "[markdown]", body) for kind, body in zip(parts[1::2], parts[2::2], strict=True)]


def claims(path: Path) -> list[ast.Assert]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)]


def number(node: ast.AST) -> float | None:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    value = node.operand if negative else node
    if isinstance(value, ast.Constant) and type(value.value) in (int, float):
        return -value.value if negative else value.value
    return None


def asserted(path: Path) -> set[float]:
    """The numbers that claims compare with."""
    found = set()
    for claim in claims(path):
        assert isinstance(claim.test, ast.Compare)
        for side in claim.test.comparators:
            sides = side.elts if isinstance(side, ast.Set | ast.List | ast.Tuple) else [side]
            found |= {number(each) for each in sides}
    return found - {None}


def told(path: Path) -> set[float]:
    """The numbers that stand in bold in the text."""
    text = " ".join(body.replace("\n# ", " ") for is_text, body in cells(path) if is_text)
    bold = re.findall(r"\*\*(.+?)\*\*", text)
    return {float(each.replace(",", "")) for part in bold for each in NUMBER.findall(part)}


def run(path: Path, folder: Path, monkeypatch, source: str | None = None) -> dict:
    """Runs a step, or other text in its place; its figures go to `folder`."""
    if "lesson.trained(" in path.read_text(encoding="utf-8") and not (SAVED_MODELS / "cifar10_resnet20").exists():
        pytest.skip("a checkout alone has saved models")
    monkeypatch.syspath_prepend(LESSON)
    monkeypatch.setenv("LESSON_FIGURES", str(folder))
    if source is not None:
        path = folder / path.name
        path.write_text(source, encoding="utf-8")
    try:
        return runpy.run_path(str(path))
    finally:
        keras.utils.clear_session()


def by_cost() -> list:
    return [pytest.param(n, marks=[] if n in CHEAP else [pytest.mark.slow], id=p.stem) for n, p in STEPS.items()]


def test_steps_are_numbered():
    assert list(STEPS) == list(range(1, 18)) == list(FAULTS)


@pytest.mark.parametrize("path", STEPS.values(), ids=lambda path: path.stem)
def test_every_step_is_whole(path):
    """Title, equation with its source, code, one figure, claims, and numbers in the claims that the text tells."""
    kinds = [is_text for is_text, _ in cells(path)]
    texts = [body for is_text, body in cells(path) if is_text]
    code = "".join(body for is_text, body in cells(path) if not is_text)
    assert path.read_text(encoding="utf-8").startswith("# %% [markdown]\n# # ")
    assert texts[0].startswith(f"# # {int(path.name[:2])}. ")
    assert texts[0].count("$$") == 2
    assert re.search(r"arXiv:|\d{4}", texts[0])
    assert any(kinds)
    assert not all(kinds)
    assert all(line.startswith("#") for text in texts for line in text.strip().splitlines())
    ends = [body.strip().splitlines()[-1] for is_text, body in cells(path) if not is_text]
    assert f'lesson.save(figure, "{path.stem}")' in ends  # where a notebook shows it
    assert code.count("lesson.save") == 1
    assert claims(path)
    assert asserted(path) <= told(path)


@pytest.mark.parametrize("number", by_cost())
def test_a_step_shows_what_it_says(number, tmp_path, monkeypatch):
    run(STEPS[number], tmp_path, monkeypatch)
    (figure,) = tmp_path.glob("*.png")
    assert figure.stem == STEPS[number].stem
    with Image.open(figure) as picture:
        assert picture.width == 810


@pytest.mark.parametrize("number", by_cost())
def test_a_step_fails_where_a_claim_is_not_true(number, tmp_path, monkeypatch):
    old, new = FAULTS[number]
    source = STEPS[number].read_text(encoding="utf-8")
    assert source.count(old) == 1
    with pytest.raises(AssertionError):
        run(STEPS[number], tmp_path, monkeypatch, source.replace(old, new))


@pytest.fixture
def everything(monkeypatch):
    """The module that runs the steps, whose folder is no package."""
    monkeypatch.syspath_prepend(LESSON)
    monkeypatch.setenv("LESSON_FIGURES", "")  # and is set back
    return runpy.run_path(str(LESSON / "all.py"), run_name="all")


def test_chosen_steps_run_with_their_figures(everything, tmp_path, capsys):
    seconds = everything["main"](everything["Options"](tmp_path / "figures", (11, 3)))
    assert list(seconds) == [11, 3]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"03_inception.png", "11_kernel_regression.png"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "11. Kernel regression: attention before its name"
    assert lines[-1].startswith("2 steps in ")


def test_no_such_step_is_told_before_any_work(everything, tmp_path):
    with pytest.raises(InvalidValueError, match="there is no step 18; they go from 1 to 17"):
        everything["main"](everything["Options"](tmp_path / "figures", (3, 18)))
    assert not (tmp_path / "figures").exists()


def test_a_dataset_that_is_not_at_hand_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(LESSON)
    import lesson

    monkeypatch.setattr(lesson, "at_hand", lambda name: False)
    data = lesson.labelled("mnist", 20, 10)
    assert data.images.shape == (20, 32, 32, 3)
    assert data.test_labels.shape == (10,)
    assert lesson.small_pictures(5).shape == (5, 32, 32, 3)
    assert capsys.readouterr().out.splitlines() == [
        "mnist is not at hand: the digits of scikit-learn stand in",
        "cifar10 is not at hand: cuttings of two photographs stand in",
    ]


def test_a_model_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(LESSON)
    import lesson

    monkeypatch.setattr(lesson, "SAVED_MODELS", tmp_path)
    with pytest.raises(WeightsError, match="this step needs a checkout of kzoo"):
        lesson.trained("absent")


def test_notebooks_hold_the_steps(monkeypatch, tmp_path):
    jupytext = pytest.importorskip("jupytext", reason='pip install -e ".[notebooks]"')
    module = runpy.run_path(str(LESSON / "notebooks.py"), run_name="notebooks")
    written = module["main"](module["Options"](tmp_path))
    assert [path.stem for path in written] == [path.stem for path in STEPS.values()]
    for path, step in zip(written, STEPS.values(), strict=True):
        first, *rest = jupytext.read(path).cells
        assert "recipe_dir" in first.source
        assert [cell.cell_type == "markdown" for cell in rest] == [is_text for is_text, _ in cells(step)]
        assert "".join(cell.source for cell in rest if cell.cell_type == "code").count("lesson.save") == 1


def test_notebooks_without_jupytext_are_one_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    module = runpy.run_path(str(LESSON / "notebooks.py"), run_name="notebooks")
    with pytest.raises(BackendError, match=r"need jupytext, which is not installed; pip install"):
        module["main"](module["Options"](tmp_path / "notebooks"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FIGURES.exists(), reason="a checkout alone has the figures")
def test_the_page_shows_every_step():
    page = (LESSON / "README.md").read_text(encoding="utf-8")
    for path in STEPS.values():
        assert f"]({path.name})" in page
        assert f"](../../saved_models/lesson/{path.stem}.png)" in page
    assert {path.stem for path in FIGURES.glob("*.png")} == {path.stem for path in STEPS.values()}
    assert sum(path.stat().st_size for path in FIGURES.glob("*.png")) < 1_500_000


@pytest.mark.slow
def test_a_step_runs_as_a_script(tmp_path):
    """From any folder, with its figure in `lesson`."""
    environment = {key: value for key, value in os.environ.items() if key != "LESSON_FIGURES"}
    subprocess.run([sys.executable, STEPS[11]], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "lesson" / "11_kernel_regression.png").is_file()
