"""A gallery of the attention layers: one picture for each mechanism, on real photographs, drawn by code.

    python recipes/studies/attention_gallery.py

writes the page README.md and its pictures to saved_models/attention_gallery, in about a minute on two CPU cores.
The figures are in `attention_learned.py`, where the trained model of the recipe cifar10_resnet20_cbam shows its
gates and other layers are fitted in seconds, and in `attention_patterns.py`, which needs no training.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import attention_learned as learned
import attention_patterns as patterns
import keras
from attention_plates import Plate, Scene
from matplotlib.figure import Figure
from rich.progress import track
from sklearn.datasets import load_sample_image

from kzoo.console import parse, user_errors
from kzoo.errors import WeightsError
from kzoo.files import atomic_path, ensure_writable, write_text

RECIPE = "recipes/cifar10_resnet20_cbam.py"


@dataclass(frozen=True)
class Options:
    """What is drawn from, and where to."""

    output_dir: Path = Path("saved_models/attention_gallery")
    """Directory of the page and the plates."""
    model: Path = Path("saved_models/cifar10_resnet20_cbam/model.keras")
    """The trained model of the recipe cifar10_resnet20_cbam."""
    steps: int = 200
    """Number of training steps of the layers that are fitted; with fewer the plates come sooner and show less."""


GALLERY: tuple[Plate, ...] = (
    learned.squeeze_excite,
    learned.channel_attention,
    learned.spatial_attention,
    learned.cbam,
    patterns.non_local,
    patterns.kernel_regression,
    learned.residual_attention,
    patterns.self_attention,
    patterns.stand_alone_attention,
    learned.attention_stem,
    patterns.neighborhood_attention,
    patterns.window_attention,
    patterns.sinusoidal_encoding,
    patterns.learned_encoding,
    patterns.relative_position_bias,
)

HEAD = """# Attention, in pictures

One figure for each attention layer of `kzoo.layers`, drawn by

    python recipes/studies/attention_gallery.py

Photographs: `china.jpg` by [danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035/) and
`flower.jpg` by [vultilion](https://www.flickr.com/photos/vultilion/6056698931/), both under
[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/) and shipped with scikit-learn; here they are resized, cut
and recoloured.
"""


def section(plate: Plate, numbers: dict[str, float]) -> str:
    """What the page says about a figure, in Markdown."""
    caption = inspect.getdoc(plate.draw).format(**numbers)
    summary, details = (" ".join(part.split()) for part in caption.split("\n\n"))
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", inspect.getdoc(plate.layer))
    return (
        f"\n## {plate.layer.__name__}\n\n{source.splitlines()[0]}\n\n    {plate.equation}\n\n"
        f"![{plate.layer.__name__}]({plate.name}.png)\n\n**{summary}** {details}\n\n"
        f"`{plate.call}`\n"
    )


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    with atomic_path(path) as partial_path:
        figure.savefig(partial_path, format="png", dpi=100, pil_kwargs={"optimize": True})


def main(options: Options) -> dict[str, dict[str, float]]:
    """Draws everything; returns the numbers of every figure.

    Raises:
        WeightsError: the trained model is missing.
        OutputError: the page cannot be written.
    """
    if not options.model.is_file():
        raise WeightsError(
            f"there is no trained model {options.model}; `python {RECIPE}` makes it, as "
            "saved_models/runs/cifar10_resnet20_cbam/model.keras, and --model says where it is"
        )
    ensure_writable(options.output_dir, need_bytes=2_000_000)
    pagoda, flower = (load_sample_image(name).astype("float32") for name in ("china.jpg", "flower.jpg"))
    scene = Scene(pagoda, flower, options.model, options.steps)
    page, results = HEAD, {}
    for each in track(GALLERY, "drawing"):
        keras.utils.set_random_seed(0)
        figure, numbers = each.draw(scene)
        save(figure, options.output_dir / f"{each.name}.png")
        page += section(each, numbers)
        results[each.name] = numbers
    write_text(options.output_dir / "README.md", page)
    return results


if __name__ == "__main__":
    with user_errors():
        main(parse(Options, sys.argv[1:], sys.argv[0], description=__doc__))
