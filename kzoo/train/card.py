"""The model card of a run, in Markdown, with measured numbers only."""

from kzoo.errors import counted
from kzoo.escape import markdown
from kzoo.recipe import Recipe
from kzoo.tasks import Task
from kzoo.tasks.tables import classes_table, details_table, pictures, temperature_line
from kzoo.train.command import command_of

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}  # as they are written
_START = """
The `start` files hold the weights that quantization-aware fine-tuning began with.
"""

_LITERT = """
`{file}` is for devices. `{file}.json`, the card that holds the names of the classes and the way from a picture to
pixels, must travel with it.

```sh
kzoo predict {file} photo.jpg
```

```python
from kzoo.edge import LiteRTModel

model = LiteRTModel("{file}")
{usage}
```

Without kzoo, `ai_edge_litert.interpreter.Interpreter` runs it; `how` of the card tells the whole way in sentences, and
`recipes/samples` of kzoo has programs to copy. The labels lie in the file too, where MediaPipe and ML Kit read them.
"""


def _backend(environment: dict) -> str:
    """Name and version of what Keras computed with; older reports name none, and are of TensorFlow."""
    backend = environment.get("backend", "tensorflow")
    return f"{BACKENDS.get(backend, backend)} {environment[backend]}"


def _ops(ops: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in ops.items())


def _scores(task: Task, row: dict) -> str:
    return " | ".join(column.show(row) for column in task.columns)


def _litert(exports: dict[str, dict], usage: str) -> str:
    """How to use a LiteRT file: the one of 8 bits, or the first."""
    if not exports:
        return ""
    return _LITERT.format(file=(exports.get("int8") or next(iter(exports.values())))["path"], usage=usage)


def model_card(recipe: Recipe, task: Task, report: dict) -> str:
    """Writes the card from the run's report."""
    data, environment = report["dataset"], report["environment"]
    files = {row["file"]: row for row in report["models"].values()}
    tempered = report["models"]["keras"].get("temperature")
    rows = "\n".join(
        f"| `{row['file']}` | {_scores(task, row)} | {row['size_bytes']:,} | "
        f"{row['latency_ms']:.2f} | {row['max_difference']:.1e} |"
        for row in report["models"].values()
    )
    exports = "\n".join(
        f"- `{name}`: {counted(item['xnnpack_partitions'], 'XNNPACK partition')}, {_ops(item['ops'])}; largest error "
        f"{item['max_abs_error']:.1e} absolute and {item['max_rel_error']:.1e} relative on {item['verified_on']}"
        for name, item in report["exports"].items()
    )
    changed = {flag: value for flag, value in recipe.flags().items() if value not in (None, [], {}, False)}
    settings = "\n".join(f"| {key} | {markdown(str(value))} |" for key, value in changed.items())
    classes = ", ".join(map(markdown, data["classes"][:20])) + (", ..." if len(data["classes"]) > 20 else "")
    usage = task.usage.format(size=", ".join(map(str, report["input_shape"][:2])))
    titles = [column.title for column in task.columns]
    dataset, command = markdown(data["name"], code=True), command_of(recipe)
    made = (
        markdown(command, code=True)
        if command
        else "Started from Python, or from a recipe file that kzoo does not have,"
    )
    smoke = "\n**A smoke run: a few images, to see that the path works. Its numbers mean nothing.**\n"
    return f"""# {markdown(recipe.name)}

`{recipe.model}` trained on {dataset} with kzoo {report["kzoo"]}.
{smoke if recipe.smoke else ""}
## Use

```python
import keras, kzoo

model = keras.saving.load_model("model.keras")
{usage}
```
{_litert(report["exports"], usage)}
Classes, in order: {classes}.

## Measured

On the {data["test"]} test images, with the weights of epoch {report["best_epoch"]}, which was best on
{data["validation"]} validation images held out of the training set.

| file | {" | ".join(titles)} | bytes | latency, 1 image, ms | largest difference to Keras |
| --- |{" --- |" * len(titles)} --- | --- | --- |
{rows}
{_START if "start" in report["models"] else ""}
Latency is the median of runs taken in turn on {environment["cpu_cores"]} CPU cores
({environment["machine"]}, {_backend(environment)}, Keras {environment["keras"]},
{environment["accelerators"]} accelerators): compare the rows, not the milliseconds.
{details_table(task, files)}{temperature_line(tempered, "model.keras", "test") if tempered else ""}
{exports}
{classes_table(task, files)}{pictures(report["pictures"])}
## Recipe

{made} with these settings, on {data["train"]} training images; the epochs took
{report["training_seconds"]} s.

| setting | value |
| --- | --- |
{settings}

## Limits

The {task.quality} holds for images like those of {dataset}. Nothing was measured on other cameras, crops or
classes, nor on fairness between groups of people.
"""
