"""The pages tell the truth: their Python runs, their commands are accepted, their links lead somewhere.

Collects the fenced blocks of README.md, the rooms' pages, the lesson's and CONTRIBUTING. Python blocks run in order,
in one namespace a page, in a temporary directory with the stand-ins of `stand_in`, which is the only place for them.
Of `sh` blocks, and of code in the text that is a command, every word is checked and nothing is run. `text` blocks are
what programs print.
"""

import contextlib
import dataclasses
import importlib.util
import io
import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import unquote

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.cli import COMMANDS
from kzoo.commands import list as list_command
from kzoo.commands.forms import FORMS
from kzoo.console import parse
from kzoo.layers import ATTENTION
from kzoo.precisions import PRECISIONS
from kzoo.recipe import Data, Recipe, flag_types, list_recipes, load_recipe
from kzoo.registry import lookup, select_models
from kzoo.weights import load, resolve

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("layers", "models", "weights", "surgery", "edge", "images", "data", "recipe", "tasks", "train", "report"),
    *("detection", "planning", "predict", "explain", "page", "check", "bench", "commands"),
)
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / ".github/CONTRIBUTING.md",
        ROOT / "recipes/lesson/README.md",
        *sorted(ROOT.glob("kzoo/*/README.md")),
    )
    if path.is_file()
]
LANGUAGES = ("python", "sh", "text")
MOST_TEXTS = 4  # blocks that cannot be tested, on all pages
SLOW = ("edge", "train")  # rooms whose blocks export in every precision, or train

FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"\.\.\.|\b[A-Z]{2,}\b(?!=)|\bN\b|\|")  # of commands in the text, such as `kzoo info NAME`


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of each block in a language."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 2, m[2]) for m in FENCE.finditer(text) if m[1] == language]


def commands(text: str) -> list[list[str]]:
    """The words of each command in shell lines, without comments, environment and what a pipe leads to."""
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                found.append(words)
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=\S*", word):
                words.append(word)
    return [words for words in found if words]


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict:
    """What the blocks need that is not on the page. Returns the names that they may use.

    - `kzoo.build` gives the narrow model of that name for small images, with the options that the page gives. Public
      weights are looked up by their names and not fetched: they stay random.
    - `kzoo.load_weights` reads the file that the page names after the model's own weights were written there, as Keras
      does.
    - `images` and `labels`, `train_images`, `test_images` and `test_labels` are small random ones, `elephant.jpg` too;
      `photos` have the size of a narrow transformer's.
    - Integer files are written whatever they lose: what has learned nothing, of noise, rounds badly.
    - A step of `model.fit` runs eagerly: TensorFlow takes 20 s to make a graph of the README's model, once.
    """
    build, load_weights = kzoo.zoo.build, load.load_weights
    monkeypatch.chdir(folder)

    def small(name, /, *, weights=None, backbone_weights=None, input_shape=None, num_classes=10, **options):
        entry = lookup(name)
        backbone = options.get("backbone") or entry.narrow.get("backbone")
        for model, wanted in ((name, weights), (backbone, backbone_weights)):
            if wanted is not None:
                resolve(model, wanted)
        narrow = dict(entry.narrow)
        if isinstance(options.get("attention"), str) and ATTENTION[options["attention"]].slot == "spatial":
            narrow = dict(lookup("resnet26_sasa").narrow)  # with channels for its heads
        if narrow.get("depths") == (2, 1, 1, 1):
            narrow["depths"] = (1, 1, 1, 1)  # in half the time
        if "backbone" in options:
            narrow = {key: value for key, value in narrow.items() if key != "widths"}  # of a U-Net's own encoder
            narrow["backbone_options"] = lookup(options["backbone"]).narrow
        side = entry.narrow_size if backbone is None else 64
        shape = (side, side, 3 if input_shape is None else input_shape[2])
        return build(name, input_shape=shape, num_classes=num_classes, **narrow | options)

    def own(model, source, **options):
        path = folder / f"{Path(source).stem}.weights.h5"
        model.save_weights(path)
        return load_weights(model, path, **options)

    for place in (kzoo, kzoo.zoo, importlib.import_module("kzoo.predict.classifier")):
        monkeypatch.setattr(place, "build", small)
    monkeypatch.setattr(keras.Model, "run_eagerly", property(lambda model: True, lambda model, value: None))
    for name, precision in PRECISIONS.items():
        if precision.weight_bits:
            monkeypatch.setitem(PRECISIONS, name, dataclasses.replace(precision, bound=float("inf")))
    for place in (kzoo, load):
        monkeypatch.setattr(place, "load_weights", own)
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype="uint8")).save(folder / "elephant.jpg")
    names = {}
    for name in ("images", "train_images", "test_images"):
        names[name] = rng.integers(0, 256, (8, 32, 32, 3)).astype("float32")
    names["photos"] = rng.integers(0, 256, (2, 64, 64, 3)).astype("float32")
    return names | {name: np.arange(8) for name in ("labels", "test_labels")}


def run(page: Path, monkeypatch, folder: Path) -> dict:
    names = stand_in(monkeypatch, folder)
    for line, text in blocks(page, "python"):
        # an error then names the line of the page
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
    return names


def python_pages() -> list:
    pages = [page for page in PAGES if blocks(page, "python")]
    marks = {page: [pytest.mark.slow] if page.parent.name in SLOW else [] for page in pages}
    return [pytest.param(page, marks=marks[page], id=name_of(page)) for page in pages]


@pytest.mark.parametrize("page", python_pages())
def test_python_runs(page, monkeypatch, tmp_path):
    run(page, monkeypatch, tmp_path)


def check_kzoo(words: list[str]) -> None:
    """Raises unless `kzoo WORDS` is a command, with options that it has and names that exist; or its name alone."""
    command, *args = words or ["--help"]
    if command in ("--help", "--version"):
        return
    assert command in COMMANDS, f"no command {command}"
    if not args or "--help" in args:
        return
    if command == "train":
        name, *options = (arg for arg in args if arg not in ("--json", "--save-recipe") and not arg.endswith(".py"))
        with_data = options and not options[0].startswith("-")
        assert with_data or name in list_recipes(), f"no recipe {name}"
        recipe = Recipe(name="x", model=name, data=Data(options.pop(0))) if with_data else load_recipe(name)
        form = parse(Recipe, options, "kzoo train", default=recipe)
        names = [form.model, form.backbone]
    elif command == "plan":
        form, settings = parse(FORMS[command], args, "kzoo plan", return_unknown_args=True)
        form = parse(Recipe, settings, "kzoo plan", default=load_recipe(form.recipe))
        names = [form.model, form.backbone]
    else:
        form = parse(FORMS[command], args, f"kzoo {command}")
        names = {
            "info": lambda: [form.name, form.backbone],
            "check": lambda: select_models(form.names) if form.names else [],
            "bench": lambda: select_models(form.names),
        }.get(command, lambda: [getattr(form, "model", None)])()
    if command == "list":
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            list_command.run(form)
        assert not shown.getvalue().endswith(("0 models\n", "[]\n")), "it lists nothing"
        return
    for name in filter(None, names):
        if str(name).endswith((".keras", ".tflite")):
            check_file(str(name))
        else:
            lookup(name)
    assert getattr(form, "attention", None) in (None, *ATTENTION), f"no attention {form.attention}"
    if command in ("predict", "export") and form.weights:
        resolve(form.model, form.weights)


def check_file(path: str) -> None:
    """Raises unless a file of `saved_models` is there; runs are made by the reader."""
    if path.startswith("saved_models/") and not path.startswith("saved_models/runs/") and is_checkout():
        assert (ROOT / path).exists(), f"no file {path}"


def is_checkout() -> bool:
    return (ROOT / ".git").exists()


def check(words: list[str]) -> None:
    """Raises unless a command of a page can be given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    program, *args = words
    if program == "kzoo":
        check_kzoo(args)
    elif program == "python" and args[:1] == ["-m"]:
        if args[1] == "kzoo":
            check_kzoo(args[2:])
        else:
            assert importlib.util.find_spec(args[1]), f"no module {args[1]}"
    elif program == "python" and args[0] == "-c":
        compile(args[1], "page", "exec")
    elif program == "python":
        assert (ROOT / args[0]).is_file(), f"no file {args[0]}"
        source = (ROOT / args[0]).read_text(encoding="utf-8")
        fields = flag_types()
        for option in (arg for arg in args[1:] if arg.startswith("--") and arg != "--help"):
            assert option in source or option[2:].replace("-", "_") in fields, f"{args[0]} has no {option}"
    elif program == "pytest":
        marks = {mark.partition(":")[0] for mark in project["tool"]["pytest"]["ini_options"]["markers"]}
        given = args[args.index("-m") + 1] if "-m" in args else None
        assert given is None or given in marks, f"no mark {given}"
        for path in args:
            assert not path.startswith("tests") or (ROOT / path).exists(), f"no file {path}"
    elif program == "pip":
        extra = re.search(r"\[(\w+)\]", args[-1])
        assert args[:2] == ["install", "-e"]
        assert extra is None or extra[1] in project["project"]["optional-dependencies"]
    elif program == ".ci/run":
        assert not is_checkout() or (ROOT / program).is_file()
    else:
        assert program in ("ruff", "lint-imports", "mypy", "cut"), f"what is {program}?"


def mistakes(texts: list[tuple[int, str]], capsys) -> list[str]:
    found = []
    for line, text in texts:
        for words in commands(text):
            try:
                check(words)
            except (Exception, SystemExit) as error:
                found.append(f"line {line}: {shlex.join(words)}: {error} {capsys.readouterr().err}".strip())
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_accepted(page, capsys):
    text = page.read_text(encoding="utf-8")
    plain = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    inline = [
        (plain[: match.start()].count("\n") + 1, match[1])
        for match in CODE.finditer(plain)
        if match[1].startswith(("kzoo ", "python ", "pytest ", "pip ")) and not PLACEHOLDER.search(match[1])
    ]
    assert mistakes(blocks(page, "sh") + inline, capsys) == []


def anchors(page: Path) -> set[str]:
    """What links may name in a page: its headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    found = []
    for link in LINK.findall(FENCE.sub("", text)):
        if link.startswith("https://"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.skipif(not is_checkout(), reason="a copy has not all that pages link to")
@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.skipif(not is_checkout(), reason="a copy has not all pages")
def test_every_room_has_a_page_that_the_readme_links_to():
    folders = {path.parent.name for path in ROOT.glob("kzoo/*/__init__.py")}
    assert set(ROOMS) == folders == {page.parent.name for page in PAGES if page.parent.parent == ROOT / "kzoo"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [room for room in ROOMS if f"](kzoo/{room}/README.md" not in readme] == []
    assert ROOT / ".github/CONTRIBUTING.md" in PAGES


def test_every_block_is_of_a_language_that_is_tested():
    languages = [match[1] for page in PAGES for match in FENCE.finditer(page.read_text(encoding="utf-8"))]
    assert set(languages) <= set(LANGUAGES)
    assert languages.count("text") <= MOST_TEXTS
    for page in PAGES:  # and none is hidden by its indentation or by a fence of another kind
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert re.search(r"^( {4,}\S|~~~|\s*```)", text, re.MULTILINE) is None, name_of(page)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("kzoo lits", "no command lits"),
        ("kzoo list --familly resnet", "--familly"),
        ("kzoo list --family resnext", "unknown family"),
        ("kzoo list --max-parameters 5k", "it lists nothing"),
        ("kzoo info resnet51", "unknown model"),
        ("kzoo info unet --backbone resnet51", "unknown model"),
        ("kzoo info resnet50 --attention sse", "no attention sse"),
        ("kzoo train cifar100", "no recipe cifar100"),
        ("kzoo train quickstart --learning-rat 1", "--learning-rat"),
        ("kzoo export resnet50 x.tflite --precision int7", "int7"),
        ("kzoo predict saved_models/nothing/model.keras cat.jpg", "no file"),
        ("kzoo predict resnet50 cat.jpg --weights nobodys", "nobodys"),
        ("kzoo list | kzoo bench 'resnext*'", "no model matches"),
        ("python recipes/nothing.py", "no file"),
        ("pytest -m fast", "no mark fast"),
        ("rm -r saved_models", "what is rm?"),
    ],
)
def test_a_broken_command_is_told(command, message, capsys):
    if "saved_models/nothing" in command and not is_checkout():
        pytest.skip("a copy has no files of saved_models")
    (found,) = mistakes([(7, command)], capsys)
    assert message in found
    assert found.startswith("line 7: ")


def test_broken_python_is_told_with_its_line(monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# Page\n\n```python\nimport kzoo\n```\n\ntext\n\n```python\n\nkzoo.build("resnet51")\n```\n')
    with pytest.raises(kzoo.errors.UnknownNameError) as error:
        run(page, monkeypatch, tmp_path)
    assert 11 in [entry.lineno + 1 for entry in error.traceback if str(entry.path) == str(page)]


def test_a_broken_link_is_told():
    links = "[a](nothing.md) [b](README.md#nothing) [c](#rooms) [d](kzoo/zoo.py) [e](../elsewhere)"
    assert broken_links(ROOT / "README.md", links) == ["nothing.md", "README.md#nothing", "../elsewhere"]


@pytest.mark.skipif(not is_checkout(), reason="a copy has not all files")
def test_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert {"cff-version: 1.2.0", f"version: {kzoo.__version__}", "license: Apache-2.0"} <= set(lines)
    assert f"## [{kzoo.__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
