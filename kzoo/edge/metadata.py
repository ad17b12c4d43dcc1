"""TFLite metadata: what MediaPipe Tasks, ML Kit and Netron read inside a file, with the labels and the card packed in.

The metadata are a flatbuffer of their own in a buffer of the model; the files that belong to them are a ZIP archive
behind the model. Schema: `mediapipe/tasks/metadata/metadata_schema.fbs` and `image_segmenter_metadata_schema.fbs` of
google-ai-edge/mediapipe, version 1.5.0; a table's fields are numbered in its order.
"""

import io
import json
import re
import zipfile

import flatbuffers
import numpy as np

from kzoo.edge.flatbuffer import pack_file, unpack_file
from kzoo.output import Output
from kzoo.preprocessing import PIXELS

BUFFER = "TFLITE_METADATA"  # its name in the model
IDENTIFIER, SEGMENTER_IDENTIFIER = b"M001", b"V001"
LABELS, CALIBRATION, CARD = "labels.txt", "score_calibration.txt", "kzoo_card.json"
DATE = (1980, 1, 1, 0, 0, 0)  # of packed files, so that an export is the same to the byte whenever it is made

# Fields of the tables that are written, in the schema's order
FIELDS = {
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author", "license", "associated_files"),
        "min_parser_version",
    ),
    "SubGraphMetadata": (
        *("name", "description", "input_tensor_metadata", "output_tensor_metadata", "associated_files"),
        *("input_process_units", "output_process_units", "input_tensor_groups", "output_tensor_groups"),
        "custom_metadata",
    ),
    "TensorMetadata": (
        *("name", "description", "dimension_names", "content", "process_units", "stats", "associated_files"),
    ),
    "Content": ("content_properties_type", "content_properties", "range"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "ScoreCalibrationOptions": ("score_transformation", "default_score"),
    "ScoreThresholdingOptions": ("global_score_threshold",),
    "Stats": ("max", "min"),
    "AssociatedFile": ("name", "description", "type"),
    "CustomMetadata": ("name", "data"),
    "ImageSegmenterOptions": ("activation", "min_parser_version"),
}
CONTENTS = ("FeatureProperties", "ImageProperties")  # unions: what stands first has number 1
UNITS = ("NormalizationOptions", "ScoreCalibrationOptions", "ScoreThresholdingOptions")
DESCRIPTIONS, AXIS_LABELS, AXIS_CALIBRATION = 1, 2, 4  # of `AssociatedFileType`
COLOURS = {3: 1, 1: 2}  # channels -> `ColorSpaceType`
ACTIVATIONS = {"sigmoid": 1, "softmax": 2}


class Table(dict):
    """Number of a field -> its value, of one table of the schema."""


def with_metadata(content: bytes, told: dict, output: Output) -> bytes:
    """The file with metadata, in place of those that it has; it computes what it computed.

    Args:
        content: a LiteRT file.
        told: what the card tells of it.
        output: meaning of its output.

    Returns:
        The file, with an archive of `labels.txt` (where the classes have names) and `kzoo_card.json` behind it.
    """
    from ai_edge_litert import schema_py_generated as schema

    files = {CARD: json.dumps(told, indent=2, ensure_ascii=False) + "\n"} | _files(output)
    model = unpack_file(content)
    packed = np.frombuffer(_model(told, output, files), "uint8")
    former = [entry for entry in model.metadata or [] if entry.name == BUFFER.encode()]
    if former:
        model.buffers[former[0].buffer].data = packed
    else:
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = packed
        entry.name, entry.buffer = BUFFER, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    archive = io.BytesIO(pack_file(model))
    with zipfile.ZipFile(archive, "a") as zipped:
        for name, text in files.items():
            zipped.writestr(zipfile.ZipInfo(name, DATE), text.encode("utf-8"))
    return archive.getvalue()


def without_metadata(model) -> None:
    """Takes the metadata out of the objects of a file, whose archive is left behind when they are packed."""
    for entry in model.metadata or []:
        if entry.name == BUFFER.encode():
            model.buffers[entry.buffer].data = None
    model.metadata = [entry for entry in model.metadata or [] if entry.name != BUFFER.encode()]


def _files(output: Output) -> dict[str, str]:
    """The texts that belong to the output."""
    files = {}
    if output.class_names is not None:
        names = output.class_names[-output.units :]  # of one unit the second class, whose number it gives
        files[LABELS] = "".join(re.sub(r"[\r\n]+", " ", name) + "\n" for name in names)
    if _needs_sigmoid(output):
        files[CALIBRATION] = "1,1,0"  # scale, slope, offset; a line more would be a score more
    return files


def _needs_sigmoid(output: Output) -> bool:
    """Whether a score is the logistic function of what the file gives."""
    return output.task == "classification" and output.units == 1 and output.values == "logits"


def _model(told: dict, output: Output, files: dict[str, str]) -> bytes:
    """The metadata of a file, packed."""
    segments = output.task == "segmentation"
    measured = [f"{name} {of['value']:.4f} on {of['images']} test images" for name, of in told["measured"].items()]
    custom = []
    if segments:
        activation = ACTIVATIONS["sigmoid" if output.units == 1 else "softmax"] if output.values == "logits" else 0
        options = _table("ImageSegmenterOptions", activation=np.int8(activation), min_parser_version="1.0.0")
        data = np.frombuffer(_packed(options, SEGMENTER_IDENTIFIER), "uint8")
        custom = [_table("CustomMetadata", name="SEGMENTER_METADATA", data=data)]
    graph = _table(
        "SubGraphMetadata",
        name=told["signature"],
        input_tensor_metadata=[_input(told), *(_other(told, each) for each in [*told.get("inputs", {}).values()][1:])],
        output_tensor_metadata=_outputs(told, output, files),
        custom_metadata=custom,
    )
    card = dict(name=CARD, description="All that kzoo knows of the file, as JSON.", type=np.int8(DESCRIPTIONS))
    model = _table(
        "ModelMetadata",
        name=told["model"],
        description="\n".join([*told["how"], *([f"Measured: {', '.join(measured)}."] if measured else [])]),
        version=told["precision"],
        subgraph_metadata=[graph],
        author=f"made with kzoo {told['kzoo']}",
        license=told["license"],
        associated_files=[_table("AssociatedFile", **card)],
        min_parser_version="1.5.0" if segments else "1.0.0",
    )
    return _packed(model, IDENTIFIER)


def _input(told: dict) -> Table:
    given = told["input"]
    of_pixels = given["values"] == PIXELS
    words = [f"{given['channels']}, {given['values']}", given.get("preprocessing", ""), _formula(told, given)]
    content, units = None, []
    if len(given["shape"]) == 4:
        height, width, channels = (np.uint32(size) for size in given["shape"][1:])
        size = _table("ImageSize", width=width, height=height)
        colours = np.int8(COLOURS.get(int(channels), 0))
        content = _content("ImageProperties", color_space=colours, default_size=size)
    if of_pixels:  # else nobody knows what stands for black and white
        units = [_unit("NormalizationOptions", mean=_floats(0), std=_floats(1))]
    return _table(
        "TensorMetadata",
        name=given["argument"],
        description="; ".join(filter(None, words)) + ".",
        content=content,
        process_units=units,
        stats=_table("Stats", max=_floats(255), min=_floats(0)) if of_pixels else None,
    )


def _outputs(told: dict, output: Output, files: dict[str, str]) -> list[Table]:
    """The outputs in their order, of which one is the answer."""
    answer = told["output"]["argument"]
    tensors = told.get("outputs", {answer: told["output"]})
    return [
        _output(told, output, files) if name == answer else _other(told, tensor) for name, tensor in tensors.items()
    ]


def _output(told: dict, output: Output, files: dict[str, str]) -> Table:
    wanted, units, associated = told["output"], [], []
    if LABELS in files:
        about = dict(name=LABELS, description="Names of the classes, one a line.", type=np.int8(AXIS_LABELS))
        associated.append(_table("AssociatedFile", **about))
    if CALIBRATION in files:
        about = dict(name=CALIBRATION, description="The logistic function.", type=np.int8(AXIS_CALIBRATION))
        associated.append(_table("AssociatedFile", **about))
        units.append(_unit("ScoreCalibrationOptions", score_transformation=np.int8(0), default_score=np.float32(0)))
    if output.multi_label:
        units.append(_unit("ScoreThresholdingOptions", global_score_threshold=np.float32(0.5)))
    bounded = output.values in ("softmax", "sigmoid")
    return _table(
        "TensorMetadata",
        name=wanted["argument"],
        description="; ".join(filter(None, [wanted["meaning"], _formula(told, wanted)])) + ".",
        content=_content("FeatureProperties"),
        process_units=units,
        stats=_table("Stats", max=_floats(1), min=_floats(0)) if bounded else None,
        associated_files=associated,
    )


def _other(told: dict, tensor: dict) -> Table:
    """A tensor besides the image and the answer."""
    content = _content("FeatureProperties")
    return _table("TensorMetadata", name=tensor["argument"], description=_formula(told, tensor), content=content)


def _formula(told: dict, tensor: dict) -> str:
    if "scale" not in tensor:
        return ""
    return f"{told['formula']}; scale {tensor['scale']:.9g}, zero_point {tensor['zero_point']}"


def _content(kind: str, **fields) -> Table:
    number = np.uint8(CONTENTS.index(kind) + 1)
    return _table("Content", content_properties_type=number, content_properties=_table(kind, **fields))


def _unit(kind: str, **fields) -> Table:
    return _table("ProcessUnit", options_type=np.uint8(UNITS.index(kind) + 1), options=_table(kind, **fields))


def _floats(value: float) -> np.ndarray:
    return np.array([value], "float32")


def _table(kind: str, **fields) -> Table:
    """The fields that have a value, by their numbers."""
    empty = (value is None or (isinstance(value, str | list) and not value) for value in fields.values())
    return Table(
        {FIELDS[kind].index(name): fields[name] for name, lacks in zip(fields, empty, strict=True) if not lacks}
    )


def _packed(table: Table, identifier: bytes) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(_place(builder, table), identifier)
    return bytes(builder.Output())


def _place(builder: flatbuffers.Builder, value) -> int:
    """Writes a text, numbers, a table or a list of texts or tables; returns where it stands."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        places = [_place(builder, each) for each in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    fields = {
        number: field if isinstance(field, np.generic) else _place(builder, field) for number, field in value.items()
    }
    builder.StartObject(max(fields, default=-1) + 1)
    for number, field in fields.items():
        if isinstance(field, np.generic):
            getattr(builder, f"Prepend{field.dtype.name.capitalize()}Slot")(number, field.item(), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, field, 0)
    return builder.EndObject()
