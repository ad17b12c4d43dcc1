"""A recipe as the Python file that makes it."""

import dataclasses
from typing import Any

from kzoo.recipe.recipe import KINDS, Recipe


def to_python(recipe: Recipe, docstring: str) -> str:
    """The source of a recipe file: what `load_recipe` reads back as an equal recipe.

    Args:
        recipe: the recipe.
        docstring: what stands at the beginning of the file.

    Example:
        >>> Path("mine.py").write_text(to_python(recipe, "My pictures."))
    """
    plain = Recipe(name=recipe.name, model=recipe.model, data=type(recipe.data)(recipe.data.dataset))
    lines, kinds = [], ["Recipe", "main"]
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name not in KINDS:
            if field.name in ("name", "model") or value != getattr(plain, field.name):
                lines.append(f"    {field.name}={_plain(value)!r},")
        elif value != getattr(plain, field.name) or field.name == "data":
            kinds.append(type(value).__name__)
            lines.append(f"    {field.name}={_part(value, getattr(plain, field.name), field.name == 'data')},")
    text = docstring.replace("\\", "\\\\").replace('"""', "'''")
    return "\n".join(
        [
            f'"""{text}"""\n',
            f"from kzoo.train import {', '.join(sorted(kinds))}\n",
            "RECIPE = Recipe(",
            *lines,
            ")\n",
            'if __name__ == "__main__":',
            "    main(RECIPE)\n",
        ]
    )


def _part(value: Any, plain: Any, whole: bool) -> str:
    """The call that makes a part, with the fields that are not as they would be without."""
    fields = [
        f"{field.name}={_plain(getattr(value, field.name))!r}"
        for field in dataclasses.fields(value)
        if (whole and field.name == "dataset") or getattr(value, field.name) != getattr(plain, field.name)
    ]
    return f"{type(value).__name__}({', '.join(fields)})"


def _plain(value: Any) -> Any:
    """What `repr` shows as source; paths as text."""
    return value if isinstance(value, (bool, int, float, tuple, dict, type(None))) else str(value)
