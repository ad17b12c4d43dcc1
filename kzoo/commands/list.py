"""`kzoo list`: the models of the zoo, from the catalogue, which needs no Keras."""

from collections.abc import Sequence

from kzoo.commands.catalogue import read_catalogue
from kzoo.commands.forms import List
from kzoo.console import make_table, show, show_json
from kzoo.errors import InvalidValueError, UnknownNameError, did_you_mean

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def run(form: List) -> None:
    models = read_catalogue()
    found = [model for model in models if model.matches(form.pattern)]
    if not found:
        names = [model.name for model in models]
        raise UnknownNameError(
            f"no model matches {form.pattern!r}{did_you_mean(form.pattern, names)}; kzoo list shows all"
        )
    families = list(dict.fromkeys(model.family for model in models))
    if form.family is not None and form.family not in families:
        raise UnknownNameError(f"unknown family {form.family!r}; families are {', '.join(families)}")
    most_parameters = _number("--max-parameters", form.max_parameters)
    most_macs = _number("--max-macs", form.max_macs)
    found = [
        model
        for model in found
        if form.family in (None, model.family)
        and form.task in (None, model.task)
        and model.parameters <= most_parameters
        and model.macs <= most_macs
        and (model.weights or not form.weights)
    ]
    if form.json:
        show_json([model.to_json() for model in found])
        return
    table = make_table(
        "model", "family", "task", "input", "classes", "parameters", "multiply-adds", "public weights", "arXiv"
    )
    for model in found:
        table.add_row(
            model.name,
            model.family,
            model.task,
            "×".join(map(str, model.input_shape)),
            str(model.num_classes),
            f"{model.parameters / 1e6:.2f} M",
            f"{model.macs / 1e9:.3f} G",
            _brief(model.weights),
            ", ".join(model.papers),
        )
    show(table, f"{len(found)} model{'' if len(found) == 1 else 's'}")


def _number(option: str, text: str | None) -> float:
    """What 4.1G means; no limit without a text."""
    if text is None:
        return float("inf")
    unit = text[-1:] if text[-1:].isalpha() else ""
    try:
        number = float(text.removesuffix(unit)) * UNITS[unit]
    except (KeyError, ValueError):
        number = -1
    if not 0 <= number < float("inf"):
        raise InvalidValueError(f"{option} {text!r} is no number, such as 25600000, 600k, 25.6M or 4.1G")
    return number


def _brief(weights: Sequence[str]) -> str:
    """The default checkpoint and how many more there are."""
    if not weights:
        return "-"
    return weights[0] + (f" and {len(weights) - 1} more" if len(weights) > 1 else "")
