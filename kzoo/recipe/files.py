"""Where recipes are: Python files of the tree or of the user, and reports that finished runs leave."""

import importlib.util
import re
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from kzoo.errors import InvalidValueError, UnknownNameError, did_you_mean, explain
from kzoo.reading import as_tuple, check_type, read_report
from kzoo.recipe.published import Published
from kzoo.recipe.recipe import KINDS, Recipe, flag_types, flags_of, stored_flags

_OF_DATA = (
    "class_names",
    "mask_values",
    "void",
    "validation_fraction",
    "test_fraction",
    "group_by",
    "label_separator",
    "seed",
)


def recipe_beside(model: Path, dataset: str) -> dict[str, Any]:
    """How the recipe that wrote a model's file read and divided `dataset`; nothing if no report says so.

    Args:
        model: file of a run, which has its `report.json` beside it.
        dataset: name, or a path however it is spelled and wherever from; of another one the recipe says nothing.

    Raises:
        InvalidValueError: the report cannot be read, or has a field of a wrong type.
    """
    report = read_report(model)
    recipe = stored_flags(report.get("recipe", {}))
    place = report.get("dataset", {}).get("place")
    is_there = isinstance(place, str) and _is_same(dataset, str(model.parent / place))
    if not is_there and not _is_same(dataset, recipe.get("dataset")):
        return {}
    found = {field: recipe[field] for field in _OF_DATA if field in recipe}
    check_flags(found, str(model.with_name("report.json")))
    return {field: as_tuple(value) for field, value in found.items()}


def _is_same(dataset: str, other: Any) -> bool:
    """Whether two names of datasets, one of them from a report, are of the same one."""
    if not isinstance(other, str) or not dataset or not other:
        return False
    return dataset == other or (Path(dataset).exists() and Path(dataset).resolve() == Path(other).resolve())


def check_flags(fields: Any, source: str) -> None:
    """Raises `InvalidValueError` unless these are settings of a recipe as `Recipe.flags` gives them.

    Args:
        fields: flag -> value, some or all; names that recipes no longer have may be among them.
        source: the file that they are from.
    """
    check_type(fields, dict[str, Any], f"{source}: recipe")
    types = flag_types()
    for name in fields.keys() & types.keys():
        check_type(fields[name], types[name], f"{source}: {name}")


def recipe_dir() -> Path:
    """The folder of the recipes: `recipes/` of a checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def list_recipes() -> list[str]:
    """Names that `kzoo train` accepts."""
    return sorted(path.stem for path in recipe_dir().glob("*.py"))


def is_recipe(name: str) -> bool:
    """Whether `load_recipe` finds a file by this name or path."""
    return _file_of(name).is_file()


def _file_of(name: str) -> Path:
    """The file of a recipe: by its name in the tree, or by its path, with the suffix or without."""
    path = Path(name)
    if path.suffix != ".py":
        path = path.with_name(f"{path.name}.py") if path.name else path
        if len(path.parts) == 1 and (recipe_dir() / path).is_file():
            return recipe_dir() / path
    return path


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one in the Python file at that path, with `.py` or without, which is run.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
        InvalidValueError: the file cannot be run, and in which line, or holds no recipe.
    """
    recipe = getattr(_module_of(name), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise InvalidValueError(f"{_file_of(name)} must define RECIPE = kzoo.train.Recipe(...)")
    return recipe


def load_published(name: str) -> Published | None:
    """What others report for the settings of a recipe, which its file says in `PUBLISHED`; None where it does not.

    Raises:
        UnknownNameError, InvalidValueError: as `load_recipe`.
    """
    published = getattr(_module_of(name), "PUBLISHED", None)
    if not isinstance(published, Published | None):
        raise InvalidValueError(f"{_file_of(name)}: PUBLISHED must be kzoo.recipe.Published(...)")
    return published


def _module_of(name: str) -> ModuleType:
    """The module that a recipe file is, which is run."""
    path = _file_of(name)
    if not path.is_file():
        names = list_recipes()
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        raise UnknownNameError(f"unknown recipe {name!r}{hint}")
    spec = importlib.util.spec_from_file_location(f"kzoo_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidValueError(f"{path} is no Python file that can be run")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the code in it does
        raise InvalidValueError(f"{path}{_line_of(error, path)}: {explain(error)}{_moved(error)}") from error
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Where in a file an error arose, for a message."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _moved(error: BaseException) -> str:
    """Which part has a setting that recipes before 0.2 had in themselves, for a message."""
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    name = unexpected[1] if unexpected else ""
    for part, kinds in KINDS.items():
        for kind in kinds:
            if field := flags_of(part, kind).get(name):
                return f"; say {part}={kind.__name__}({field}=...)"
    return ""
