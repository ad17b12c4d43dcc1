"""Compiled programs' needs kept as small files, as a compilation takes minutes."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kzoo.files import write_text
from kzoo.planning.roofline import Program
from kzoo.recipe import Recipe

# settings that make no other program
ELSEWHERE = {"name", "output_dir", "data_dir", "resume", "smoke", "seed", "export", "checkpoint_minutes", "patience"}
ELSEWHERE |= {"epochs", "minutes", "warmup_epochs", "step_epochs", "learning_rate", "test_fraction"}


def key_of(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """What a program depends on: the recipe's settings but those of `ELSEWHERE`, and `others` such as versions."""
    settings = {name: value for name, value in recipe.flags().items() if name not in ELSEWHERE}
    return {"recipe": settings, **others}


def kept(folder: Path, key: Mapping[str, Any], make: Callable[[], Program]) -> Program:
    """The program of a key: from a file of a folder, or made and kept there.

    Args:
        folder: of the files; made if it is not there.
        key: JSON values that the program depends on.
        make: compiles it.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / f"{digest}.json"
    fields = {field.name for field in dataclasses.fields(Program)}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == json.loads(json.dumps(key)) and found["program"].keys() == fields:
            return Program(**found["program"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, half written, or of another version
    program = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"key": key, "program": program.to_json()}, indent=1) + "\n")
    return program
