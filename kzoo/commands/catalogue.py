"""The catalogue: what `kzoo list` and completion tell of every model, kept in a file so that nothing is built for it.

`python -m kzoo.commands.catalogue` makes the file anew, and tests/commands/test_catalogue.py says when that is due.
"""

import dataclasses
import fnmatch
import json
from pathlib import Path
from typing import Any

from kzoo.reading import as_tuple

PATH = Path(__file__).with_name("catalogue.json")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A model in the catalogue.

    Attributes:
        name: name that `kzoo.build` takes.
        family: family that it belongs to.
        task: "classification", "segmentation" or "detection".
        input_shape: default (height, width, channels).
        num_classes: default number of classes.
        parameters: number of trainable parameters at the default shape and classes.
        macs: multiply-adds for one image at the default shape.
        weights: names of its public checkpoints, the default one first.
        papers: arXiv numbers, or authors and year.
    """

    name: str
    family: str
    task: str
    input_shape: tuple[int, int, int]
    num_classes: int
    parameters: int
    macs: int
    weights: tuple[str, ...]
    papers: tuple[str, ...]

    def matches(self, pattern: str) -> bool:
        """Whether its name matches a shell-style pattern."""
        return fnmatch.fnmatchcase(self.name, pattern)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_catalogue() -> list[Listed]:
    """The models of the zoo, by name."""
    rows = json.loads(PATH.read_text(encoding="utf-8"))
    return [Listed(**{key: as_tuple(value) for key, value in row.items()}) for row in rows]


def list_of(name: str) -> Listed:
    """What the catalogue has to say of a model, from the model itself."""
    import keras

    from kzoo.registry import lookup
    from kzoo.weights import known
    from kzoo.zoo import describe

    entry = lookup(name)
    with keras.StatelessScope(initialize_variables=False):  # sizes need no values
        info = describe(name)
    return Listed(
        name=name,
        family=entry.family,
        task=entry.task,
        input_shape=entry.input_shape,
        num_classes=entry.num_classes,
        parameters=info.trainable_parameters,
        macs=info.macs,
        weights=known(name)[1:],
        papers=entry.papers,
    )


def main() -> None:
    """Writes the catalogue."""
    from rich.progress import track

    from kzoo.files import write_text
    from kzoo.registry import list_models

    rows = [json.dumps(list_of(name).to_json()) for name in track(list_models())]
    write_text(PATH, "[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main()
