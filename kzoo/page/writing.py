"""Writing a page: everything is checked first, and the folder is there whole or not at all."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from kzoo.edge import Card, LiteRTModel, read_card
from kzoo.edge.card import card_path, tell_tensor
from kzoo.errors import InvalidValueError
from kzoo.escape import html
from kzoo.files import ensure_writable
from kzoo.images.overlay import colours
from kzoo.own_folder import check_own
from kzoo.page.examples import HEATMAP, Example, read_examples, store_example
from kzoo.page.runtime import CORE, MIRROR, VERSION, find_runtime, import_map, package_place
from kzoo.reading import check_type, read_bytes, read_json

SCRIPT, TEMPLATE = (Path(__file__).with_name(name) for name in ("kzoo.js", "index.html"))
TOLD = "page.json"  # what a page knows of itself, by which it is known
MODEL = "model.tflite"
TYPES = ("float32", "uint8", "int32")  # of inputs and outputs that LiteRT.js has


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        folder: path of the folder.
        model: name of the model.
        size_bytes: size of all files.
        runtime: version of LiteRT.js.
        needs_network: whether LiteRT.js is loaded from a public mirror.
        examples: number of pictures of the user's in it.
    """

    folder: str
    model: str
    size_bytes: int
    runtime: str
    needs_network: bool
    examples: int


def write_page(
    model: str | Path,
    folder: str | Path,
    *,
    runtime: str | Path | None = None,
    examples: Sequence[str | Path] = (),
) -> Page:
    """Writes a folder that shows a LiteRT file at work in any browser: picture or camera in, answer out.

    The file itself computes in the page. Any static server will do, such as `python -m http.server`; no picture leaves
    the browser. Examples are stored as PNG without what a camera wrote into them, at most 640 pixels wide and high.

    Args:
        model: `.tflite` file with its card beside it, whose input and output are float32 or uint8: a classifier, or
            one that gives each pixel of its image a class.
        folder: folder to write. A page of ours is replaced, anything else is left alone.
        runtime: folder of the npm package `@litertjs/core`, which is copied: then the page works offline. Default: the
            same version of it is loaded from a public mirror.
        examples: pictures to choose from in the page, with Python's numbers for its button "Check". Without any, a
            picture that was drawn is checked.

    Returns:
        A `Page`. `index.html` in its folder is what to open.

    Raises:
        InvalidValueError: a file without a card, of several images at once, of integers that browsers do not run, or
            whose answer is neither classes nor a map of classes; a runtime of another version; no picture.
        OutputError: the folder is no page of ours or cannot be written.

    Example:
        >>> write_page("model.tflite", "site", runtime="node_modules/@litertjs/core").needs_network
        False
    """
    model, folder = Path(model), Path(folder).absolute()
    content, card, facts = _read(model)
    runtime_files = {} if runtime is None else find_runtime(Path(runtime))
    check_own(folder, TOLD, "kzoo_page", "kzoo page")
    pictures = read_examples([Path(path) for path in examples])
    lite = LiteRTModel(content, answer=card.answer)
    _check_runs(model, lite, card)
    _check_told(card_path(model), lite, card, facts)
    sizes = [len(content), *(source.stat().st_size for source in runtime_files.values())]
    ensure_writable(folder.parent, need_bytes=2 * sum(sizes))
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "page"
        made.mkdir()
        (made / MODEL).write_bytes(content)
        shutil.copyfile(card_path(model), made / card_path(MODEL))
        for name, source in runtime_files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, made / name)
        shutil.copyfile(SCRIPT, made / SCRIPT.name)
        (made / "index.html").write_text(_index(facts["model"], bool(runtime_files)), encoding="utf-8")
        told = _told(card, bool(runtime_files), lite, pictures, made)
        (made / TOLD).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        _replace(folder, made, Path(temporary) / "old")
    return Page(str(folder), facts["model"], size, VERSION, not runtime_files, len(examples))


def _read(model: Path) -> tuple[bytes, Card, dict[str, Any]]:
    """The file, its card, and the card's own words."""
    if model.suffix != ".tflite":
        raise InvalidValueError(f"{model} is no .tflite file; kzoo export writes one, and a page shows it")
    content, card = read_bytes(model), read_card(model)
    if card is None:
        raise InvalidValueError(
            f"{model} has no card ({card_path(model).name}), which tells a page what to feed it; export it with kzoo "
            "export, which writes both"
        )
    facts = read_json(card_path(model))
    if facts["kzoo_card"] < 2 or not isinstance(facts.get("model"), str):
        raise InvalidValueError(f"{card_path(model)} is of an old kzoo; export the model again")
    return content, card, facts


def _check_runs(model: Path, lite: LiteRTModel, card: Card) -> None:
    """Raises `InvalidValueError` unless a browser runs the file and a page can show its answer."""
    tensors = [("takes", lite.input), ("gives", lite.output)]
    if heatmap := lite.outputs.get(HEATMAP):
        tensors.append(("gives", heatmap))
    for what, detail in tensors:
        if detail["dtype"].__name__ not in TYPES:
            raise InvalidValueError(
                f"{model} {what} {detail['dtype'].__name__}, and LiteRT.js has no such tensors; export it again with "
                "--io float32"
            )
    shape, output = lite.input_shape, card.output
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        raise InvalidValueError(
            f"{model} takes {shape}; a page feeds one picture, (1, height, width, 3), or 1 channel if it is grey"
        )
    given = tuple(map(int, lite.output["shape"]))
    if output.task not in ("classification", "segmentation"):
        raise InvalidValueError(f"{model} gives {given}; a page shows classes, or a class for each pixel")
    if len(given) != (4 if output.task == "segmentation" else 2) or given[-1] != output.units:
        raise InvalidValueError(
            f"the card of {model} is of {output.units} units for {output.task}, and the file gives {given}; export "
            "the model again"
        )
    if output.task == "segmentation" and given[1:3] != shape[1:3]:
        raise InvalidValueError(
            f"{model} gives maps of {given[1]}×{given[2]} for images of {shape[1]}×{shape[2]}; a page shows maps of "
            "the size of the image"
        )
    output.check_known(str(model))
    if heatmap and (len(heatmap["shape"]) != 4 or heatmap["shape"][3] != output.units):
        raise InvalidValueError(
            f"{model} gives a heat map of shape {tuple(map(int, heatmap['shape']))}; one of (1, height, width, "
            f"{output.units}) is shown"
        )


def _check_told(path: Path, lite: LiteRTModel, card: Card, facts: dict[str, Any]) -> None:
    """Raises `InvalidValueError` unless a card tells of the tensors what they are: kzoo.js takes its word for it."""
    told = [("input", facts.get("input"), lite.input), ("output", facts.get("output"), lite.output)]
    if HEATMAP in lite.outputs and card.answer:
        outputs = facts.get("outputs")
        heatmap = outputs.get(HEATMAP) if isinstance(outputs, dict) else None
        told.append((f"output {HEATMAP!r}", heatmap, lite.outputs[HEATMAP]))
    for what, claimed, detail in told:
        known = tell_tensor(what, detail)
        for field in ("shape", "dtype", "scale", "zero_point"):
            found = claimed.get(field) if isinstance(claimed, dict) else None
            if found != known.get(field):
                raise InvalidValueError(
                    f"{path} says that the {what} has the {field} {str(found)[:60]}, and the file says "
                    f"{known.get(field)}; export the model again"
                )
    measured = facts.get("measured", {})
    check_type(measured, dict[str, dict[str, float]], f"{path}: measured")
    if lacking := [metric for metric, of in measured.items() if not {"value", "images"} <= of.keys()]:
        raise InvalidValueError(f"{path}: measured[{lacking[0]!r}] lacks value or images; export the model again")
    check_type(facts.get("how", []), list[str], f"{path}: how")


def _replace(folder: Path, made: Path, old: Path) -> None:
    """Puts what was made in the place of the folder, which stays if that fails."""
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(made, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise


def _told(card: Card, copied: bool, lite: LiteRTModel, pictures: Sequence[Example], made: Path) -> dict[str, Any]:
    """What page.json tells kzoo.js; writes the examples."""
    from kzoo import __version__

    examples = [store_example(example, number, made, lite, card) for number, example in enumerate(pictures, start=1)]
    return {
        "kzoo_page": 1,
        "kzoo": __version__,
        "runtime": {"version": VERSION, "wasm": f"{package_place(CORE, copied)}wasm/", "network": not copied},
        "colours": colours(card.output.names).tolist() if card.output.task == "segmentation" else [],
        "size_bytes": lite.size_bytes,
        "examples": examples,
        "files": sorted([TOLD, *(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())]),
    }


def _index(model: str, copied: bool) -> str:
    """The page itself, whose policy lets it load and reach nothing but its own folder, and LiteRT.js."""
    template = TEMPLATE.read_text(encoding="utf-8")
    packages = import_map(copied)
    inline = [packages, *(_between(template, f"<{tag}>", f"</{tag}>") for tag in ("script", "style"))]
    of_packages, of_script, of_style = map(_digest, inline)
    mirror = "" if copied else f" {MIRROR}"
    policy = (
        f"default-src 'none'; script-src 'self'{mirror} 'wasm-unsafe-eval' {of_packages} {of_script}; "
        f"style-src {of_style}; img-src 'self' blob: data:; connect-src 'self'{mirror}; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(template).substitute(policy=policy, title=html(model), packages=packages)


def _between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


def _digest(text: str) -> str:
    """A text that stands in the page, as its policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
