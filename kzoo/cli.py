"""The `kzoo` command: finds the options and the module of a command, and brings them together."""

import importlib
import os
import sys
from collections.abc import Sequence

import kzoo
from kzoo.console import parse, quiet_import, user_errors
from kzoo.errors import UnknownNameError, did_you_mean

COMMANDS = {
    "list": "List the models of the zoo.",
    "info": "Show the size, cost, feature maps, weights, papers and options of a model.",
    "recipes": "List the recipes with their cost, and what was measured or published.",
    "train": "Train a recipe, or a model on your pictures.",
    "plan": "Tell what a recipe needs on devices that may not be here: memory, time, cost.",
    "evaluate": "Measure the accuracy of a file on a dataset, or the mean IoU of a model for segmentation.",
    "predict": "Name what pictures show, or segment them, with a model of the zoo or a file.",
    "explain": "Write a page that shows which places of pictures speak for what a model says of them.",
    "export": "Fold a model and write it as LiteRT files that were checked against Keras.",
    "page": "Write a folder that shows a LiteRT file at work in any browser, without a server of its own.",
    "check": "Check that models build, save, learn, fold, export and agree with JAX.",
    "bench": "Time a model as LiteRT files and in Keras, by turns, and show the ratios.",
    "completion": "Print a script that completes commands, names and options in a shell.",
}
COMPLETE = "__complete"  # what that script asks
WITH_SETTINGS = ("plan",)  # commands that take the settings of a recipe besides their own


def main(args: Sequence[str] | None = None) -> None:
    """Runs the `kzoo` command."""
    args = list(sys.argv[1:] if args is None else args)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not args or args[0] in ("-h", "--help"):
        print("usage: kzoo COMMAND [OPTIONS]\n")
        for name, summary in COMMANDS.items():
            print(f"  {name:<12}{summary}")
        print("\nkzoo COMMAND --help shows the options of a command.")
        raise SystemExit(0 if args else 2)
    if args[0] == "--version":
        print(f"kzoo {kzoo.__version__}")
        return
    name, *options = args
    with user_errors():
        if name == COMPLETE:
            from kzoo.commands.completion import complete

            print("\n".join(complete(options, COMMANDS)))
            return
        if name not in COMMANDS:
            meant = did_you_mean(name, COMMANDS) or f"; commands are {', '.join(COMMANDS)}"
            raise UnknownNameError(f"unknown command {name!r}{meant}")
        from kzoo.commands.forms import FORMS

        if name in WITH_SETTINGS:
            from kzoo.commands.train_words import check_first

            check_first(options, name, "a recipe")
        form = FORMS.get(name)
        parsed = {"description": COMMANDS[name], "return_unknown_args": name in WITH_SETTINGS}
        given = parse(form, options, f"kzoo {name}", **parsed) if form else options
        if name == "train":
            from kzoo.commands.train_words import check_words

            check_words(options)
        with quiet_import():
            command = importlib.import_module(f"kzoo.commands.{name}")
        command.run(*given if name in WITH_SETTINGS else [given])
