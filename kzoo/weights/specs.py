"""Which public checkpoints exist, where they are, and under which licence."""

from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import WeightsError, did_you_mean

HUB = "hf://"


@dataclass(frozen=True)
class WeightsSpec:
    """A public checkpoint.

    Attributes:
        source: what `kzoo.load_weights` takes.
        licence: of the weights, as their publisher states it.
    """

    source: str
    licence: str


# model -> name -> checkpoint; the first of each model is also called "imagenet"
WEIGHTS: dict[str, dict[str, WeightsSpec]] = {
    name: {"a1_in1k": WeightsSpec(f"{HUB}timm/{name}.a1_in1k", "Apache-2.0")}
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
}
WEIGHTS["resnet50_se"] = {"a1_in1k": WeightsSpec(f"{HUB}timm/seresnet50.a1_in1k", "Apache-2.0")}


def known(model: str) -> tuple[str, ...]:
    """The names that `build(model, weights=...)` accepts, the default one first."""
    names = tuple(WEIGHTS.get(model, ()))
    return ("imagenet", *names) if names else ()


def resolve(model: str, weights: str | Path) -> str | Path:
    """The source of a checkpoint given by name; a path or hub address is returned as it is.

    Raises:
        WeightsError: neither a known name nor a path that exists.
    """
    text = str(weights)
    if text in known(model):
        specs = WEIGHTS[model]
        return specs[text if text in specs else next(iter(specs))].source
    if text.startswith(HUB) or Path(text).is_file():
        return weights
    names = known(model)
    accepted = f"one of {', '.join(names)}, " if names else ""
    raise WeightsError(
        f"weights={text!r} is no file and no checkpoint known for {model}; pass {accepted}'hf://owner/name', "
        f"or the path of a .safetensors, .weights.h5 or .keras file{did_you_mean(text, names)}"
    )
