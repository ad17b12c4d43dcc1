"""What is timed of a model: matrix products, LiteRT files, Keras functions, and what they are compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from kzoo.edge import LiteRTModel, export_each
from kzoo.edge.convert import convert
from kzoo.edge.export_report import threads_of
from kzoo.errors import ExportError, InvalidValueError, explain

SIDE = 2048  # of the matrices whose product says what the machine can do
CEILING = "time / ceiling"
IN_LITERT = "matrix product in LiteRT"


@dataclass(frozen=True)
class Subject:
    """One thing that is timed.

    Attributes:
        name: name of its own among all subjects of a model.
        run: function that is timed; None if `problem` says why there is nothing.
        threads: number of threads; None where the library takes all cores.
        batch: number of images of one run; None for files and products, which take one.
        macs: multiply-adds of one image, where they are known.
        size_bytes: size of its file.
        partitions: number of pieces in which the XNNPACK delegate runs its file.
        over: title of a ratio -> subject that it is over. All are speeds, but for `CEILING`: that is the time over
            the time that a matrix product takes for as many multiply-adds.
        problem: reason why it cannot be timed.
    """

    name: str
    run: Callable[[], object] | None = None
    threads: int | None = None
    batch: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    partitions: int | None = None
    over: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def ceiling_name(threads: int) -> str:
    return f"{SIDE}×{SIDE} matrix product, {threads_of(threads)}"


def file_name(file: str, threads: int) -> str:
    return f"{file}, {threads_of(threads)}"


def ceilings(threads: Sequence[int]) -> list[Subject]:
    """Float32 products of big matrices in NumPy, the fastest use of the machine that everybody has."""
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    a, b = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype("float32")
    product = np.empty_like(a)

    def multiply(number: int) -> None:
        with blas.limit(limits=number):
            if any(library["num_threads"] != number for library in blas.info()) or not blas.info():
                raise InvalidValueError(f"the matrix library of NumPy cannot be held to {threads_of(number)} here")
            np.matmul(a, b, out=product)

    return [Subject(ceiling_name(number), partial(multiply, number), number, macs=SIDE**3) for number in threads]


def litert_products(threads: Sequence[int], directory: Path) -> list[Subject]:
    """The same product by LiteRT's own kernels, as a 1x1 convolution: what they leave of the ceiling at their best."""
    inputs = keras.Input((32, SIDE // 32, SIDE))
    content = convert(keras.Model(inputs, keras.layers.Conv2D(SIDE, 1)(inputs)))
    path = directory / "product.tflite"
    path.write_bytes(content)
    products = with_threads(f"{SIDE}×{SIDE} {IN_LITERT}", path, threads, macs=SIDE**3)
    return [replace(product, size_bytes=None, partitions=None) for product in products]


def litert_files(
    model: keras.Model,
    macs: int,
    precisions: Sequence[str],
    threads: Sequence[int],
    images: np.ndarray,
    directory: Path,
    say: Callable[[str], None],
    maker: str = "",
    rivals: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Subject]:
    """A model as LiteRT files, each with each number of threads.

    Args:
        model: folded model, as `kzoo.export` takes it.
        macs: multiply-adds of one image.
        precisions: precisions of the files.
        threads: numbers of threads of the interpreter.
        images: images to calibrate on.
        directory: an existing folder for the files.
        say: function that is told what happens.
        maker: name of who else made the model, which stands before the precision.
        rivals: maker -> precision -> the file that this one is compared with.
    """
    say(f"exporting {maker or 'its files'}")
    try:
        results = dict(export_each(model, directory / (maker or "zoo"), precisions, images))
    except ExportError as error:
        return [Subject(f"{maker} files".strip(), problem=explain(error))]
    subjects = []
    for precision, report in results.items():
        file = f"{maker} {precision}".strip()
        if isinstance(report, ExportError):
            subjects.append(Subject(file, problem=explain(report)))
            continue
        over = {f"speed / {rival}": files[precision] for rival, files in (rivals or {}).items()}
        if precision != "float32":
            over = {"speed / float32": f"{maker} float32".strip(), **over}
        subjects += with_threads(file, Path(report.path), threads, over, macs, report.xnnpack_partitions)
    return subjects


def with_threads(
    file: str,
    path: Path,
    threads: Sequence[int],
    over: Mapping[str, str] | None = None,
    macs: int | None = None,
    partitions: int | None = None,
) -> list[Subject]:
    """A LiteRT file with each number of threads, compared with the ceiling, its fewest threads and other files.

    Args:
        file: name of the file among the subjects.
        path: path of the file.
        threads: numbers of threads of the interpreter.
        over: title of a ratio -> the file that it is over.
        macs: multiply-adds of one image, if they are known.
        partitions: number of partitions of the XNNPACK delegate; default: they are counted.
    """
    subjects = []
    for number in threads:
        ratios = {} if macs is None else {CEILING: ceiling_name(number)}
        ratios |= {title: file_name(other, number) for title, other in (over or {}).items()}
        if number != min(threads):
            ratios[f"speed / {threads_of(min(threads))}"] = file_name(file, min(threads))
        subject = Subject(file_name(file, number), threads=number, macs=macs, over=ratios)
        try:
            subject = replace(subject, run=_invocation(path, number), size_bytes=path.stat().st_size)
            pieces = LiteRTModel(path).xnnpack_partitions() if partitions is None else partitions
            subject = replace(subject, partitions=pieces)
        except Exception as error:  # LiteRT raises what it likes
            subject = replace(subject, run=None, problem=explain(error))
        subjects.append(subject)
    return subjects


def _invocation(path: Path, threads: int) -> Callable[[], None]:
    """One run of a file on random values, which is what a device does: no float images are quantized for it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    values = np.random.default_rng(0).integers(0, 128, detail["shape"]).astype(detail["dtype"])
    interpreter.set_tensor(detail["index"], values)
    return interpreter.invoke


def keras_functions(
    model: keras.Model, folded: keras.Model, batches: Sequence[int], say: Callable[[str], None]
) -> list[Subject]:
    """The functions that `model.predict` would run, plain and folded, as TensorFlow's graph and under XLA."""
    subjects = []
    for batch in batches:
        images = random_images(batch, model.inputs[0].shape[1:])
        for variant, each in (("plain", model), ("folded", folded)):
            for mode, jit_compile in (("graph", False), ("XLA", True)):
                over = {"speed / plain": ("plain", mode)} if variant == "folded" else {}
                over |= {"speed / graph": (variant, "graph")} if mode == "XLA" else {}
                subject = Subject(
                    _keras_name(variant, mode, batch),
                    batch=batch,
                    over={title: _keras_name(*other, batch) for title, other in over.items()},
                )
                say(f"compiling {subject.name}")
                try:
                    run = _predict_function(each, jit_compile, images)
                    run()
                    subject = replace(subject, run=run)
                except Exception as error:  # of XLA too
                    subject = replace(subject, problem=explain(error))
                subjects.append(subject)
    return subjects


def _keras_name(variant: str, mode: str, batch: int) -> str:
    return f"Keras, {variant}, {mode}, {batch} image{'s' if batch > 1 else ''}"


def _predict_function(model: keras.Model, jit_compile: bool, images: np.ndarray) -> Callable[[], np.ndarray]:
    view = keras.Model(model.inputs, model.outputs)  # the same layers and weights; each compiles by itself
    view.jit_compile = jit_compile
    if view.jit_compile != jit_compile:
        raise InvalidValueError("a layer of the model does not support XLA")
    return lambda: view.predict_on_batch(images)


def random_images(number: int, shape: Sequence[int]) -> np.ndarray:
    """Random images of 0 to 255, float32 (number, height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (number, *shape)).astype("float32")
