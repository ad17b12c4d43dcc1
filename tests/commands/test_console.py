"""Tables and JSON: frames on a terminal, lines for programs elsewhere, and never half a name."""

import io
import json
import logging
import math
import subprocess
import sys

import pytest
import rich.console

from kzoo import console
from kzoo.commands.forms import FORMS
from kzoo.console import make_table, show, show_json
from kzoo.escape import terminal
from kzoo.recipe import Recipe, load_recipe

LONG = "a_name_of_more_than_eighty_characters_" * 3


@pytest.fixture
def tables():
    first = make_table("model", "XNNPACK\npartitions", "note")
    first.add_row(LONG, "1", terminal("[red] is no colour"))
    first.caption = "one\ntwo"
    second = make_table("resnet", "", header=False)
    second.add_row("family", "[bold]resnet[/]")
    return first, second


def test_in_a_pipe_a_row_is_a_line(tables, capsys):
    show(*tables, "3 models in [bold]folder[/bold]")
    assert capsys.readouterr().out == (
        "model\tXNNPACK partitions\tnote\n"
        f"{LONG}\t1\t[red] is no colour\n"
        "one\ntwo\n"
        "\n"
        "resnet\n"
        "family\tresnet\n"
        "3 models in folder\n"
    )


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_a_table_has_a_frame(tables, no_color, monkeypatch):
    file = io.StringIO()
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(
        console, "Console", lambda **options: rich.console.Console(file=file, force_terminal=True, width=60, **options)
    )
    show(*tables, "[red]failed[/] " + LONG)
    text = file.getvalue()
    assert "│" in text
    assert LONG in text  # a line is not folded
    assert ("\x1b[31m" in text) is not no_color


def test_json_is_strict(capsys):
    show_json({"a": [math.nan, 1.5, {"b": -math.inf}], "c": (1, "\x1b[2J")})
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert json.loads(text) == {"a": [None, 1.5, {"b": None}], "c": [1, "\x1b[2J"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "x", "--price", "abc"], "--price abc is not accepted; it must be a number"),
        (["plan", "x", "--jobs", "2.5"], "--jobs 2.5 is not accepted; it must be a whole number"),
        (["train", "quickstart", "--devices", "x"], "--devices x is not accepted; it must be a whole number or one "
         "of auto, cpu, gpu, tpu"),
        (["train", "quickstart", "--learning-rate", "x"], "--learning-rate x is not accepted; it must be a number"),
        (["train", "quickstart", "--image-size", "8", "a"], "--image-size 8 a is not accepted; it must be a whole "
         "number or two whole numbers"),
        (["train", "quickstart", "--step-epochs", "a", "b"], "--step-epochs a b is not accepted"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_read_are_told_in_words(arguments, message, capsys):
    command, *options = arguments
    default = {"default": load_recipe(options.pop(0))} if command == "train" else {}
    with pytest.raises(SystemExit):
        console.parse(FORMS.get(command, Recipe), options, f"kzoo {command}", **default)
    assert capsys.readouterr().err == f"kzoo: {message} (see kzoo {command} --help)\n"


def test_a_warning_is_told_once(capsys):
    with console.user_errors():
        for message in ("one", "two", "one"):
            logging.getLogger("kzoo").warning(message)
    assert capsys.readouterr().err.splitlines() == ["kzoo: warning: one", "kzoo: warning: two"]


def test_who_stops_reading_sees_no_traceback():
    command = [sys.executable, "-m", "kzoo", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
