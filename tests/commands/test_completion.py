"""Completion: what may come next, and scripts that real shells run."""

import os
import shutil
import subprocess
import sys

import pytest

import kzoo
from kzoo.cli import COMMANDS, main
from kzoo.commands.completion import SCRIPTS, complete
from kzoo.precisions import PRECISIONS
from kzoo.recipe import list_recipes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ex"], ["explain", "export"]),
        (["explain", "vgg11", "x.png", "--method", "e"], ["eigencam"]),
        (["--v"], ["--version"]),
        (["info", "resnet18_c"], ["resnet18_cbam"]),
        (["predict", "swin_t"], kzoo.list_models("swin_t*")),
        (["train", "quick"], ["quickstart"]),
        (["train", "cifar10_resnet20"], [name for name in list_recipes() if name.startswith("cifar10_resnet20")]),
        (["train", "resnet18_c"], ["resnet18_cbam"]),
        (["train", "quickstart", ""], []),
        (["train", "quickstart", "--learning"], ["--learning-rate"]),
        (["train", "quickstart", "--js"], ["--json"]),
        (["plan", "quick"], ["quickstart"]),
        (["plan", "quickstart", "--topo"], ["--topology"]),
        (["plan", "quickstart", "--learning"], ["--learning-rate"]),
        (["export", "vgg11", "out.tflite", "--precision", "int1"], ["int16x8"]),
        (["export", "vgg11", "out.tflite", "--pre"], ["--precision"]),
        (["export", "vgg11", "out.tflite", "--precision", ""], [*PRECISIONS, "auto", "all"]),
        (["predict", "vgg11", "x.png", "--resize", ""], ["stretch", "crop", "pad"]),
        (["list", "--task", "s"], ["segmentation"]),
        (["completion", ""], list(SCRIPTS)),
        (["evaluate", ""], []),  # files
        (["no_command", ""], []),
    ],
)
def test_what_may_come_next(words, expected):
    assert sorted(complete(words, COMMANDS)) == sorted(expected)


def test_nothing_typed_gives_every_command():
    assert set(COMMANDS) < set(complete([], COMMANDS))


ASK = {
    "bash": 'source script; COMP_WORDS=(kzoo info resnet18_c); COMP_CWORD=2; _kzoo; echo "${COMPREPLY[@]}"',
    "zsh": "compdef() { :; }; compadd() { print -l ${(P)2}; }; _files() { :; }; words=(kzoo info resnet18_c); "
    "CURRENT=3; source ./script; _kzoo",
    "fish": 'source script; complete -C "kzoo info resnet18_c"',
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_run(shell, tmp_path, capsys):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    main(["completion", shell])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "kzoo").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kzoo "$@"\n')
    (tmp_path / "kzoo").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", ASK[shell]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["resnet18_cbam"], done.stderr
