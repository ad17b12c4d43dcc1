"""A Jupyter notebook of each step.

pip install -e ".[notebooks]"
python recipes/lesson/notebooks.py --output-dir notebooks
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from kzoo.console import parse, user_errors
from kzoo.errors import BackendError

FIRST = """import sys

from kzoo.recipe import recipe_dir

sys.path.append(str(recipe_dir() / "lesson"))  # where lesson.py is"""


@dataclass(frozen=True)
class Options:
    """Where the notebooks go."""

    output_dir: Path = Path("notebooks")
    """Directory of the notebooks."""


def main(options: Options) -> list[Path]:
    """Writes the notebooks; returns their paths.

    Raises:
        BackendError: jupytext is not installed.
    """
    try:
        import jupytext
        from nbformat.v4 import new_code_cell
    except ImportError as error:
        raise BackendError('notebooks need jupytext, which is not installed; pip install -e ".[notebooks]"') from error
    options.output_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py")):
        notebook = jupytext.read(path, fmt="py:percent")
        notebook.cells.insert(0, new_code_cell(FIRST))
        written.append(options.output_dir / f"{path.stem}.ipynb")
        jupytext.write(notebook, written[-1])
    return written


if __name__ == "__main__":
    with user_errors():
        for path in main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__)):
            print(path)
