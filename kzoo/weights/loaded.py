"""The report of what was loaded, and whether a file fits at all."""

from dataclasses import dataclass, field

from kzoo.errors import WeightsError

HEADS = ("head_dense", "head_class_logits")  # a classifier, in whose name those of auxiliary heads end; a detector
DENSE_HEAD = "head_fc1"  # takes maps of one size


@dataclass(repr=False)
class WeightsReport:
    """What `load_weights` did, by Keras variable path or by name in the file.

    Attributes:
        source: address or path that the weights came from.
        loaded: variable path -> name in the file.
        adapted: variable path -> what changed its array to fit, beyond the layout of the axes.
        initialised: variables that kept their random values on purpose.
        new: variables of the attention that the file's network does not have; the network starts as that one.
        missing: variables that the file does not hold; empty unless `strict=False`.
        unexpected: names in the file that no variable took; empty unless `strict=False`.
    """

    source: str
    loaded: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    initialised: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = (
            f"{len(getattr(self, name))} {name}"
            for name in ("loaded", "adapted", "initialised", "new", "missing", "unexpected")
            if name != "new" or self.new
        )
        return f"{self.source}: {', '.join(counts)}"

    def __repr__(self) -> str:  # a notebook shows it, and a model has hundreds of names
        return f"<WeightsReport {self}>"

    def refuse_misfits(self, model: str, wrong: list[str], strict: bool) -> None:
        """Raises `WeightsError` unless the file fits `model`; `wrong` says which arrays have another shape."""
        problems = [("do not fit", wrong)]
        if strict:
            problems += [("are missing", self.missing), ("are unexpected", self.unexpected)]
        found = [
            f"{len(items)} {what}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
            for what, items in problems
            if items
        ]
        if not self.loaded:
            found.append("nothing in it matches the model's names")
        if found:
            advice = _advice(wrong, self.missing if strict else [])
            raise WeightsError(f"{self.source} does not fit {model}: {'; '.join(found)}; {advice}")


def _is_of_head(item: str) -> bool:
    return any(head in item for head in HEADS)


def _advice(wrong: list[str], missing: list[str]) -> str:
    dense_head = [item for item in wrong if DENSE_HEAD in item]
    if dense_head and all(DENSE_HEAD in item or _is_of_head(item) for item in wrong):
        return (
            "the file's dense head takes maps of another size; build the model for the images the file was made for, "
            "or with head='average' and num_classes, or with include_top=False"
        )
    if wrong and all(map(_is_of_head, wrong)):
        return (
            "the file is for another number of classes: build with that num_classes, or keep yours and a classifier "
            "with random weights by passing num_classes to kzoo.build or head='initialise' to kzoo.load_weights"
        )
    if missing and not wrong and all(item.startswith("head_") for item in missing):
        without_dense = " and head='average'" if any(DENSE_HEAD in item for item in missing) else ""
        return (
            "the file has no classifier; build with include_top=False, or with num_classes"
            f"{without_dense} for a new classifier"
        )
    return "build the architecture that the file was made for"
