"""Deliberate faults, and whether the default tests catch them: `python tests/faults.py` prints a table.

Each fault replaces one piece of text in a scratch copy of the tree and runs the tests where it should be caught; the
tree itself is never touched. The processes start as copies of one that has TensorFlow loaded already, so that a fault
costs the tests alone.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("kzoo", "tests", "recipes", "pyproject.toml", "README.md")
LINKED = ("saved_models",)
PRELOADED = ("tensorflow", "keras", "tensorflow_datasets", "sklearn.datasets", "matplotlib.pyplot", "hypothesis")
LIMIT_SECONDS = 1200


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody could make.

    Attributes:
        promise: what it breaks, in words.
        file: path inside `kzoo/`.
        old: text that stands there once.
        new: what takes its place.
        tests: where it should be caught, the most related first: paths inside `tests/`, with `::name` or not.
    """

    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    # files of detectors
    Fault(
        "boxes of an int8 file are decoded in float",
        "precisions.py",
        "kept_float=_CUTS, float_ends=True",
        "kept_float=_CUTS",
        ("edge/test_detector_files.py::test_boxes_are_decoded_in_float",),
    ),
    Fault(
        "boxes of an int8 file leave in float",
        "edge/source.py",
        "elif self.card.output.detects and",
        "elif False and",
        ("edge/test_detector_files.py::test_boxes_leave_in_float_and_scores_in_integers",),
    ),
    Fault(
        "a partner is of the same class",
        "edge/compare.py",
        "free & (expected.classes == kind)",
        "free",
        ("edge/test_detector_files.py::test_detections_agree_with_partners_of_their_class",),
    ),
    Fault(
        "what follows the last convolutions of a detector is not rounded in training",
        "surgery/fake_quantization.py",
        "return rounded - _float_ends(model, layers, graph)",
        "return rounded",
        ("edge/test_detector_files.py::test_the_file_rounds_where_training_does",),
    ),
    # detection
    Fault(
        "a table names pictures outside its folder",
        "data/listing.py",
        'normal.parts[:1] == ("..",)',
        "False",
        ("data/test_tables.py::test_a_path_that_leaves_the_folder_is_refused",),
    ),
    Fault(
        "a description of COCO names pictures outside the dataset's folder",
        "data/coco.py",
        """        path_inside(path, root, f"{file}, the image with the id {number!r}")\n""",
        "",
        ("data/test_detection_sets.py::test_a_file_name_of_coco_that_leaves_the_folder_is_refused",),
    ),
    Fault(
        "the line of a box is a pixel too far to the right and below",
        "images/boxes.py",
        "np.maximum(edges[:, 2:] - 1, first)",
        "np.maximum(edges[:, 2:], first)",
        ("images/test_drawn_boxes.py::test_lines_lie_inside_the_box_in_the_colour_of_its_class",),
    ),
    Fault(
        "the name of a box at the right border is cut off",
        "images/boxes.py",
        "x = min(left, size[0] - width)",
        "x = left",
        ("images/test_drawn_boxes.py::test_a_name_is_whole_and_inside_wherever_the_box_is",),
    ),
    Fault(
        "a sheet shows a crowd as if it were one object",
        "report/box_sheets.py",
        ", classes, dashed=crowds)",
        ", classes)",
        ("report/test_box_pictures.py::test_truth_and_prediction_stand_side_by_side",),
    ),
    Fault(
        "an anchor between the two overlaps is left out of the loss",
        "detection/losses.py",
        "ops.where(matches == IGNORED, 0, focal)",
        "focal",
        ("detection/test_detection_losses.py::test_losses_are_those_of_a_loop",),
    ),
    Fault(
        "RetinaNet's sums are divided for each image by itself",
        "detection/losses.py",
        'counts = ops.maximum(ops.sum(ops.cast(found, "float32"), axis=1), 1)',
        'counts = ops.maximum(ops.mean(ops.sum(ops.cast(found, "float32"), axis=1)), 1)',
        ("detection/test_detection_losses.py::test_losses_are_those_of_a_loop",),
    ),
    Fault(
        "what is no box is found by no point",
        "detection/assignment.py",
        "(classes[:, None] >= 0)",
        "(classes[:, None] >= -1)",
        ("detection/test_assignment.py",),
    ),
    Fault(
        "the smallest box wins where several fit",
        "detection/assignment.py",
        "ops.argmin(sizes, axis=-1)",
        "ops.argmax(ops.cast(fits, 'int32'), axis=-1)",
        ("detection/test_assignment.py",),
    ),
    Fault(
        "suppression is for each class by itself",
        "detection/suppression.py",
        "worse = (classes[rest] == classes[best]) & (",
        "worse = (",
        ("detection/test_suppression.py",),
    ),
    Fault(
        "a level gives its best candidates",
        "detection/suppression.py",
        'order = np.argsort(-scores[places, classes], kind="stable")[: self.candidates]',
        'order = np.argsort(-scores[places, classes][: self.candidates], kind="stable")',
        ("detection/test_suppression.py",),
    ),
    Fault(
        "the surest detection takes a box first",
        "detection/average_precision.py",
        'order = np.argsort(-sure.scores, kind="stable")',
        "order = np.arange(len(sure))",
        ("detection/test_average_precision.py",),
    ),
    Fault(
        "boxes follow the picture into the middle of its border",
        "images/pixels.py",
        "np.tile(np.array([columns.start, rows.start]) / shape[::-1], 2)",
        "np.zeros(4)",
        ("data/test_detection_sets.py",),
    ),
    Fault(
        "a document type in XML is refused",
        "reading.py",
        "    parser.StartDoctypeDeclHandler = refuse\n",
        "",
        ("data/test_detection_sets.py::test_hostile_xml_is_one_line",),
    ),
    Fault(
        "a box that is there twice is dropped",
        "data/annotations.py",
        "if reason is None and key in chosen:",
        "if False:",
        ("data/test_detection_sets.py",),
    ),
    Fault(
        "a mirrored picture has mirrored boxes",
        "data/box_changes.py",
        "first, last = ops.min(ends, axis=2), ops.max(ends, axis=2)",
        "first, last = ops.min(ops.abs(ends), axis=2), ops.max(ops.abs(ends), axis=2)",
        ("data/test_box_changes.py",),
    ),
    Fault(
        "a crop keeps one of the boxes whole",
        "data/box_changes.py",
        "high = ops.where(none, 1 - sides, ops.minimum(first, 1 - sides))",
        "high = 1 - sides",
        ("data/test_box_changes.py",),
    ),
    # detectors
    Fault(
        "boxes are in the pixels of the picture",
        "predict/detector.py",
        "pixels.boxes_in_picture(boxes, picture.size, shape[:2])",
        "pixels.boxes_in_picture(boxes, shape[1::-1], shape[:2])",
        ("predict/test_detector.py",),
    ),
    Fault(
        "boxes are relative to the image without its padding",
        "layers/boxes.py",
        "self.places.anchors[None, None] / self.places.scale",
        "self.places.anchors[None, None] / np.array([*self.places.padded[::-1]] * 2, 'float32')",
        ("layers/test_decoded_boxes.py",),
    ),
    Fault(
        "a side is at most 62.5 times that of its anchor",
        "detection/coding.py",
        "ops.exp(ops.minimum(deltas[..., 2:], LARGEST_GROWTH))",
        "ops.exp(deltas[..., 2:])",
        ("layers/test_decoded_boxes.py",),
    ),
    Fault(
        "the score of FCOS is the root of the product",
        "layers/boxes.py",
        "ops.sqrt(ops.sigmoid(logits) * ops.sigmoid(centerness))",
        "ops.sigmoid(logits) * ops.sigmoid(centerness)",
        ("layers/test_decoded_boxes.py",),
    ),
    Fault(
        "anchors of a position go by ratios, then by sizes",
        "places.py",
        "boxes = np.stack([-widths, -heights, widths, heights], axis=-1).reshape(-1, 4) / 2",
        "boxes = np.stack([-widths, -heights, widths, heights], axis=-1).swapaxes(0, 1).reshape(-1, 4) / 2",
        ("test_places.py",),
    ),
    Fault(
        "the sides of anchors are whole pixels",
        "places.py",
        'np.array([int(stride * anchor_size * scale) for scale in scales], "float32")',
        'np.array([stride * anchor_size * scale for scale in scales], "float32")',
        ("test_places.py",),
    ),
    Fault(
        "the prior is on the class head",
        "models/detector.py",
        'to_logits = _conv(count * num_classes, "head_class_logits", bias=-math.log((1 - PRIOR) / PRIOR))',
        'to_logits = _conv(count * num_classes, "head_class_logits")',
        ("models/test_detectors.py::test_fine_tuning_starts_at_the_prior",),
    ),
    Fault(
        "images are padded at the right and at the bottom",
        "models/detector.py",
        "((0, bottom), (0, right))",
        "((bottom, 0), (right, 0))",
        ("models/test_detection_parity.py",),
    ),
    Fault(
        "P6 reads the pyramid's last map where the config says so",
        "models/fpn.py",
        'source = last if config.extra == "stride" else maps[level]',
        "source = last",
        ("models/test_detection_parity.py",),
    ),
    Fault(
        "the distances of FCOS go through ReLU",
        "models/detector.py",
        "to_offsets(boxes) if to_centerness is None else rectify(to_offsets(boxes))",
        "to_offsets(boxes)",
        ("models/test_detectors.py::test_heads_by_loops",),
    ),
    # layers
    Fault(
        "a box is explained on the map on which it stands",
        "explain/layers.py",
        "if box.place < end), -1)",
        "if box.place <= end), -1)",
        ("explain/test_explained_boxes.py::test_every_level_has_its_map",),
    ),
    Fault(
        "maps of detectors lie over the image, without its padding",
        "explain/layers.py",
        "    return maps[:, :rows, :columns]",
        "    return maps",
        ("explain/test_explained_boxes.py::test_maps_lie_over_the_image_without_its_padding",),
    ),
    Fault(
        "a box is found again where its classes are alike",
        "explain/boxes.py",
        "(shared * alike * scores.max(axis=-1))",
        "(shared * scores.max(axis=-1))",
        ("explain/test_explained_boxes.py::test_how_much_is_found_again_is_what_a_loop_finds",),
    ),
    Fault(
        "each image is explained by its own box",
        "explain/boxes.py",
        "logits[row, each.place, each.class_index]",
        "logits[row, boxes[0].place, each.class_index]",
        ("explain/test_explained_boxes.py::test_gradients_are_of_the_logit_of_the_class_at_the_place",),
    ),
    Fault(
        "a class that was not found is explained by the surest box of it",
        "explain/detections.py",
        "asked = np.full_like(scores, -1)",
        "asked = scores.copy()",
        ("explain/test_explained_detections.py::test_what_was_not_found_is_explained_by_the_surest_box_there_is",),
    ),
    Fault(
        "the same box of another model is of the same class",
        "explain/detections.py",
        'index = list(class_names).index(row["class"])',
        'index = row["index"]',
        (
            "explain/test_explained_detections.py::test_the_same_box_of_another_model_overlaps_most_and_is_of_the_class",
        ),
    ),
    Fault(
        "a function that is a target gives one score for each image",
        "explain/targets.py",
        "tuple(shape) != (logits.shape[0],)",
        "len(shape) > 2",
        ("explain/test_cams.py::test_mistakes",),
    ),
    Fault(
        "no shares are made of what is no probability",
        "explain/judging.py",
        "if probable else {}",
        "if True else {}",
        ("explain/test_judged_maps.py::test_targets_without_a_probability_are_judged_by_their_logits",),
    ),
    Fault(
        "the gradient of many steps is compiled once",
        "explain/gradients.py",
        "_COMPILERS.get(backend, lambda each: each)(",
        "(lambda each: each)(",
        ("explain/test_pixels_and_masks.py::test_the_gradient_is_compiled_once_for_all_steps",),
    ),
    Fault(
        "channel attention averages over the whole map",
        "layers/squeeze_excite.py",
        "ops.mean(x, axis=(1, 2), keepdims=True)",
        "ops.mean(x, axis=(1,), keepdims=True)[:, :, :1]",
        ("layers/test_squeeze_excite.py",),
    ),
    Fault(
        "the hidden width is rounded to the nearest multiple, halves up",
        "layers/squeeze_excite.py",
        "channels / self.reduction + self.divisor / 2",
        "channels / self.reduction",
        ("layers/test_squeeze_excite.py",),
    ),
    Fault(
        "CBAM's folded layer keeps the batch normalisation's epsilon",
        "layers/cbam.py",
        "scale = gamma / np.sqrt(variance + self.batch_norm.epsilon)",
        "scale = gamma / np.sqrt(variance + 1e-3)",
        ("layers/test_cbam.py",),
    ),
    Fault(
        "spatial attention takes its maximum over the channels",
        "layers/cbam.py",
        "maximum(x, axis=-1, training=training)",
        "maximum(x, axis=-2, training=training) + 0 * x[..., :1]",
        ("layers/test_cbam.py",),
    ),
    Fault(
        "the gradient of a maximum goes to one place",
        "layers/maximum.py",
        "if not training:",
        "if True:",
        ("layers/test_maximum.py",),
    ),
    Fault(
        "softmax over the keys",
        "layers/dot_product.py",
        "ops.softmax(logits, axis=-1)",
        "ops.softmax(logits, axis=-2)",
        ("layers/test_window_attention.py", "layers/test_self_attention.py"),
    ),
    Fault(
        "queries are scaled by the root of the head's width",
        "layers/window_attention.py",
        "(channels // self.num_heads) ** -0.5",
        "channels**-0.5",
        ("layers/test_window_attention.py",),
    ),
    Fault(
        "shifted windows mask columns that only meet because of the roll",
        "layers/window_attention.py",
        "rolled[:, -step[1] :] += 2",
        "rolled[:, -step[1] :] += 0",
        ("layers/test_window_attention.py",),
    ),
    Fault(
        "shifted windows are shifted back",
        "layers/window_attention.py",
        "x = shift(x, -rows, -columns)",
        "x = shift(x, rows, columns)",
        ("layers/test_window_attention.py",),
    ),
    Fault(
        "biases of neighbours lie by rows and then columns",
        "layers/neighborhood_attention.py",
        "bias = ops.transpose(bias, (0, 1, 3, 2, 4))",
        "bias = ops.transpose(bias, (0, 3, 1, 4, 2))",
        ("layers/test_neighborhood_attention.py",),
    ),
    Fault(
        "non-local dot products are divided by the number of keys",
        "layers/non_local.py",
        "f / ops.cast(ops.shape(keys)[1], dtype)",
        "f / ops.cast(ops.shape(queries)[1], dtype)",
        ("layers/test_non_local.py",),
    ),
    Fault(
        "a folded non-local block takes the convolution's bias along",
        "layers/non_local.py",
        "(bias - mean) * scale + beta",
        "bias - mean * scale + beta",
        ("layers/test_non_local.py",),
    ),
    Fault(
        "dropped paths do nothing at inference",
        "layers/stochastic_depth.py",
        "if not (training and self.trainable) or self.rate == 0:",
        "if self.rate == 0:",
        ("layers/test_stochastic_depth.py",),
    ),
    Fault(
        "kept paths are scaled so that the mean stays",
        "layers/stochastic_depth.py",
        "x * (ops.cast(draws < keep, x.dtype) / keep)",
        "x * ops.cast(draws < keep, x.dtype)",
        ("layers/test_stochastic_depth.py",),
    ),
    Fault(
        "local response normalisation reads size // 2 channels on each side",
        "layers/response_norm.py",
        "<= self.size // 2",
        "< self.size // 2",
        ("layers/test_response_norm.py",),
    ),
    Fault(
        "option A pads as many channels on each side",
        "layers/subsample.py",
        "(0, 0), (side, side)",
        "(0, 0), (0, 2 * side)",
        ("layers/test_subsample.py",),
    ),
    Fault(
        "logits of attention are computed in float32 at half precision",
        "layers/dot_product.py",
        'dtype = keras.backend.result_type(query.dtype, "float32")',
        "dtype = query.dtype",
        ("layers/test_every_layer.py::test_half_precision_bears_large_activations",),
    ),
    Fault(
        "one convolution gives the columns of a group",
        "layers/column_convolution.py",
        "- np.arange(columns) + size // 2",
        "- np.arange(columns)[::-1] + size // 2",
        ("layers/test_column_convolution.py", "layers/test_cbam.py"),
    ),
    Fault(
        "masks are written out for a GPU",
        "layers/dot_product.py",
        "if is_for_gpu() and",
        "if False and",
        ("edge/test_gpu.py::test_attention_for_the_gpu_is_the_same_and_whole",),
    ),
    Fault(
        "maxima stay in integers",
        "edge/quantize.py",
        "{BuiltinOperator.REDUCE_MAX: TFLOperationName.REDUCE_MIN} | dict(known)",
        "dict(known)",
        ("edge/test_precisions.py::test_attention_stays_in_integers",),
    ),
    # models
    Fault(
        "strided convolutions pad symmetrically",
        "models/blocks.py",
        "if strides > 1 and kernel_size > 1:",
        "if False:",
        ("models/test_timm_parity.py", "models/test_resnet.py"),
    ),
    Fault(
        "batch normalisation has epsilon 1e-5",
        "models/blocks.py",
        "def batch_norm(x, *, epsilon: float = 1e-5,",
        "def batch_norm(x, *, epsilon: float = 1e-3,",
        (
            "models/test_unet_parity.py",
            "models/test_vgg.py",
            "models/test_fpn_parity.py",
            "models/test_vgg_weights.py",
        ),
    ),
    Fault(
        "a version-1 ResNet strides in its first convolution",
        "models/resnet.py",
        "(strides, 1) if config.stride_conv == 1 else (1, strides)",
        "(1, strides) if config.stride_conv == 1 else (strides, 1)",
        ("models/test_resnet.py::test_cost_of_v1", "models/test_resnet.py::test_logits_equal_keras_applications"),
    ),
    Fault(
        "GoogLeNet's batch normalisation has epsilon 1e-3",
        "models/googlenet.py",
        "BN_EPSILON = 1e-3",
        "BN_EPSILON = 1e-5",
        ("models/test_inception_parity.py", "models/test_googlenet.py"),
    ),
    Fault(
        "patches merge their pixels column by column",
        "layers/merge_pixels.py",
        "(-1, 2, width, channels)",
        "(-1, 2, width // 2, 2 * channels)",
        ("layers/test_merge_pixels.py", "models/test_swin.py"),
    ),
    Fault(
        "the decoder of a U-Net stacks the skip in front",
        "models/unet.py",
        '_concat")([skip, x])',
        '_concat")([x, skip])',
        ("models/test_unet_parity.py",),
    ),
    Fault(
        "the last activation is computed in float32",
        "models/blocks.py",
        'return "float32" if compute_dtype in ("float16", "bfloat16") else compute_dtype',
        "return compute_dtype",
        ("test_zoo.py::test_half_precision_ends_in_full",),
    ),
    # surgery
    Fault(
        "folding reads a normalisation's own epsilon",
        "surgery/affine.py",
        'np.sqrt(values["moving_variance"] + norm.epsilon)',
        'np.sqrt(values["moving_variance"] + 1e-3)',
        ("surgery/test_fold_batch_norm.py",),
    ),
    Fault(
        "folding scales the bias of the convolution too",
        "surgery/linear.py",
        "bias = bias * after.scale + after.offset",
        "bias = bias + after.offset",
        ("surgery/test_fold_batch_norm.py",),
    ),
    Fault(
        "folding sees all that padding='same' adds",
        "surgery/linear.py",
        "(kernel - 1) * dilation + 1 - size",
        "(kernel - 1) * dilation - size",
        ("surgery/test_fold_ahead.py", "surgery/test_random_models.py"),
    ),
    Fault(
        "kernels in groups fold with the scale of the channels that they read",
        "surgery/linear.py",
        "np.repeat(values, kernel.shape[-1] // groups, axis=1)",
        "np.tile(values, (1, kernel.shape[-1] // groups))",
        ("surgery/test_fold_ahead.py", "surgery/test_random_models.py"),
    ),
    Fault(
        "kernels are rounded to the nearest step",
        "surgery/fake_quantization.py",
        "ops.clip(ops.round(kernel / step), -largest",
        "ops.clip(ops.floor(kernel / step), -largest",
        ("surgery/test_fake_quantization.py",),
    ),
    # page
    Fault(
        "pixels of a page are those of Python: Pillow's order of passes",
        "page/kzoo.js",
        "const columnsFirst = lost > Math.max(0, 2 * narrowed);",
        "const columnsFirst = false;",
        ("page/test_kzoo_js.py::test_pixels_are_those_of_python",),
    ),
    Fault(
        "pixels of a page are those of Python: halves go to the even neighbour",
        "page/kzoo.js",
        "return number % 2 === 0 || below % 2 === 0 ? below : below + 1;",
        "return below;",
        ("page/test_kzoo_js.py::test_pixels_are_those_of_python",),
    ),
    Fault(
        "one logit tells two classes apart in a page too",
        "page/kzoo.js",
        "(i % 2 ? second[i >> 1] : 1 - second[i >> 1])",
        "second[i >> 1]",
        ("page/test_kzoo_js.py::test_probabilities_are_those_of_python",),
    ),
    Fault(
        "bytes stand for what the int8 numbers stood for",
        "edge/interface.py",
        "shift = SHIFT[io] - SHIFT[self.type(tensor)]",
        "shift = 0",
        ("edge/test_interface.py",),
    ),
    Fault(
        "outputs keep the order of the model's dict",
        "edge/interface.py",
        "if len(inputs) == len(outputs) == 1:",
        "if inputs:",
        ("edge/test_several_outputs.py",),
    ),
    Fault(
        "each output is judged by itself, and the worst counts",
        "edge/source.py",
        "return max(errors, key=lambda name:",
        "return min(errors, key=lambda name:",
        ("edge/test_several_outputs.py",),
    ),
    # explanations
    Fault(
        "each image is explained by itself",
        "explain/cams.py",
        "weights = found.gradients.mean(axis=(1, 2), keepdims=True)",
        "weights = found.gradients.mean(axis=(0, 1, 2), keepdims=True)",
        ("explain/test_cams.py::test_each_image_is_explained_by_itself",),
    ),
    Fault(
        "what augments is quiet while a model is explained",
        "explain/replay.py",
        'kwargs["training"] = False',
        'kwargs["training"] = True',
        ("explain/test_cams.py::test_however_a_model_is_put_together",),
    ),
    Fault(
        "scores are of logits",
        "explain/replay.py",
        "self._ends = [_before_activation(place) for place in self.outputs]",
        "self._ends = [(place, None) for place in self.outputs]",
        ("explain/test_cams.py",),
    ),
    Fault(
        "weights of a shifted window lie where its pixels come from",
        "layers/window_attention.py",
        "found = number_places(shape[1], shape[2], self._cut)",
        "found = number_places(shape[1], shape[2], lambda x: np.roll(self._cut(x), 1, axis=0))",
        ("explain/test_attention_maps.py::test_where_a_place_looks_nearby",),
    ),
    Fault(
        "relevance goes from queries to keys",
        "explain/places.py",
        '"bwq,bwqk->bwk"',
        '"bwk,bwqk->bwq"',
        ("explain/test_rollout.py::test_a_stack_of_self_attention",),
    ),
    Fault(
        "only attention that speaks for the target is rolled out",
        "explain/places.py",
        "np.maximum(weights * gradients.reshape(weights.shape), 0)",
        "weights * gradients.reshape(weights.shape)",
        ("explain/test_rollout.py::test_a_stack_of_self_attention",),
    ),
    Fault(
        "gradients in weights go through the weights of the layers above",
        "explain/rollout.py",
        "logits(images, instead=instead)",
        "logits(images, {(n, 0): found[n].mix(found[n].tensor) for n in list(found)[1:]}, instead)",
        ("explain/test_rollout.py::test_gradients_in_the_weights_are_those_of_finite_differences",),
    ),
    Fault(
        "what comes down past all attention tells nothing of a target",
        "explain/rollout.py",
        "np.maximum(rolled - past, 0)",
        "np.maximum(rolled, 0)",
        ("explain/test_rollout.py::test_a_stack_of_self_attention",),
    ),
    Fault(
        "strided layers hand relevance to every place that they read",
        "explain/handing.py",
        "index * stride - before",
        "index * stride",
        ("explain/test_rollout.py::test_nat",),
    ),
    Fault(
        "padding takes no relevance",
        "explain/handing.py",
        "(at >= padding[0]) & (at < inputs - padding[1])",
        "(at >= 0) & (at < inputs)",
        ("explain/test_rollout.py::test_nat", "explain/test_rollout.py::test_swin"),
    ),
    Fault(
        "a gain over the baselines is positive where the map is better",
        "explain/trust.py",
        'sign * (found["map"][key] - found[what][key])',
        'found["map"][key] - found[what][key]',
        ("explain/test_explain_more.py::test_scores_are_those_of_judge_maps_beside_the_baselines",),
    ),
    Fault(
        "classes of a second model are found by name",
        "commands/explain.py",
        "return {index: others[first.class_names[index]] for index in asked}",
        "return {index: index for index in asked}",
        ("explain/test_explain_more.py::test_second_model_beside_the_first",),
    ),
    Fault(
        "a page takes the place of a page alone",
        "own_folder.py",
        "if others := sorted(files - set(map(str, ours if isinstance(ours, list) else ()))):",
        "if others := ():",
        ("page/test_write_page.py::test_a_page_is_replaced_and_nothing_else",),
    ),
    Fault(
        "an example of a page tells nothing of its camera",
        "page/examples.py",
        "Image.fromarray(np.asarray(picture))",
        "picture",
        ("page/test_write_page.py::test_the_numbers_of_an_example_are_those_of_the_file",),
    ),
    Fault(
        "a page reaches nothing but its folder",
        "page/writing.py",
        "connect-src 'self'{mirror}",
        "connect-src *",
        ("page/test_write_page.py::test_the_policy_of_a_page_lets_nothing_out",),
    ),
    Fault(
        "a page has the runtime that it was tried with",
        "page/runtime.py",
        'if told.get("version") != VERSION:',
        "if False:",
        ("page/test_write_page.py::test_a_runtime_that_does_not_fit_is_one_line",),
    ),
    # edge
    Fault(
        "pixels are shifted by the zero point of an integer input",
        "edge/runtime.py",
        "np.round(array / scale) + zero_point",
        "np.round(array / scale)",
        ("edge/test_export.py::test_int8",),
    ),
    Fault(
        "integer outputs are read with their zero point",
        "edge/runtime.py",
        '(array.astype("float32") - zero_point) * scale',
        'array.astype("float32") * scale',
        ("edge/test_export.py::test_int8",),
    ),
    Fault(
        "ranges of activations that never fire are widened",
        "edge/quantize.py",
        '- np.asarray(values["min"]) < 1e-6)',
        '- np.asarray(values["min"]) < 0)',
        ("edge/test_export.py::test_int8_of_units_that_never_fire",),
    ),
    Fault(
        "probabilities get a range up to one",
        "edge/quantize.py",
        '"max": np.ones(shape, "float32")}',
        '"max": np.full(shape, 0.5, "float32")}',
        ("edge/test_precisions.py::test_probabilities_have_room_up_to_one",),
    ),
    Fault(
        "a file that differs from Keras is not written",
        "edge/source.py",
        'if not distances["relative_error"] <= PRECISIONS[precision].bound:',
        "if False:",
        ("edge/test_export.py::test_a_file_that_disagrees_is_not_written", "edge/test_export.py"),
    ),
    Fault(
        "labels that are no class do not count",
        "edge/compare.py",
        "counted = (labels >= 0) & (labels < output.num_classes)",
        "counted = (labels >= 0) & (labels <= output.num_classes + 255)",
        ("edge/test_precisions.py::test_measures",),
    ),
    # files, weights, tiles
    Fault(
        "a file is whole or not there",
        "files.py",
        "        partial.unlink(missing_ok=True)\n        raise",
        "        os.replace(partial, path) if partial.exists() else None\n        raise",
        ("test_files.py",),
    ),
    Fault(
        "arrays of the wrong shape are never loaded",
        "weights/match.py",
        "if array.shape != tuple(variable.shape):\n                layout",
        "if array.size != np.prod(variable.shape):\n                layout",
        ("weights/test_load.py", "weights/test_foreign_files.py", "weights/test_adapt.py"),
    ),
    Fault(
        "names in a file that the model does not use are told",
        "weights/match.py",
        "[name for name in names.arrays if name not in used]",
        "[]",
        ("weights/test_load.py", "weights/test_foreign_files.py"),
    ),
    Fault(
        "tables of neighbours are resized head by head",
        "weights/adapt.py",
        "bias.transpose(1, 2, 0).reshape(side**2, -1)",
        "bias.reshape(side**2, -1)",
        ("weights/test_adapt.py",),
    ),
    Fault(
        "tiles mirror the image at its borders",
        "predict/tiles.py",
        'mode="reflect")  # several',
        'mode="edge")  # several',
        ("predict/test_tiles.py",),
    ),
    # what outputs and inputs mean
    Fault(
        "one logit is judged at zero",
        "output.py",
        '(0.0 if self.values == "logits" else 0.5)',
        "0.5",
        ("test_output.py::test_probabilities_and_decisions", "test_answers.py"),
    ),
    Fault(
        "independent sigmoids stay as they are",
        "output.py",
        'return softmax(outputs, axis=-1) if self.values == "logits" else outputs',
        "return softmax(outputs, axis=-1)",
        ("test_output.py::test_probabilities_and_decisions", "test_answers.py"),
    ),
    Fault(
        "one sigmoid is class 1 against class 0",
        "output.py",
        "np.concatenate([1 - second, second], axis=-1)",
        "np.concatenate([second, 1 - second], axis=-1)",
        ("test_output.py::test_probabilities_and_decisions", "test_answers.py"),
    ),
    Fault(
        "dropout behind the head is looked through",
        "last_operation.py",
        '*("Dropout", "AlphaDropout",',
        '*("AlphaDropout",',
        ("test_output.py",),
    ),
    Fault(
        "a softmax over another axis is none over the classes",
        "last_operation.py",
        "len(axes) == 1 and axes[0] in (-1, len(shape) - 1)",
        "True",
        ("test_output.py",),
    ),
    Fault(
        "the output of a model inside is that of the call",
        "graph.py",
        "(name, call - (name in made), i)",
        "(name, 0, i)",
        ("test_flatten.py",),
    ),
    Fault(
        "classes of a data set are matched by name",
        "class_names.py",
        "np.array([names.index(name) for name in class_names], int)",
        "np.arange(len(class_names))",
        ("test_answers.py",),
    ),
    Fault(
        "images of 0 to 1 are refused by a model of pixels inside another",
        "preprocessing.py",
        'if getattr(node.operation, "weights", []) or len(node.sources) != 1:',
        "if True:",
        ("test_preprocessing.py",),
    ),
    Fault(
        "half precision inside a model is named",
        "edge/arguments.py",
        "for layer in all_layers(model) if layer.weights",
        "for layer in model.layers if layer.weights",
        ("test_preprocessing.py",),
    ),
    Fault(
        "control characters of names do not reach the terminal",
        "escape.py",
        'in ("Cc", "Cs")',
        'in ("Cs",)',
        ("test_escape.py",),
    ),
    Fault(
        "a planted link is not followed",
        "files.py",
        "    partial.unlink(missing_ok=True)\n    try:\n        os.close(os.open(partial, os.O_CREAT | os.O_EXCL",
        "    try:\n        os.close(os.open(partial, os.O_CREAT",
        ("test_files.py",),
    ),
    Fault(
        "a separable convolution costs both of its steps",
        "graph.py",
        "kernels = (layer.depthwise_kernel, layer.pointwise_kernel)",
        "kernels = (layer.pointwise_kernel,)",
        ("test_graph.py",),
    ),
    Fault(
        "a model with a name of its own takes torch files",
        "weights/family.py",
        "return best if known[best] > len(paths) / 2 else None",
        "return None",
        ("weights/test_load.py",),
    ),
    # training
    Fault(
        "images are shuffled in training",
        "data/seeds.py",
        ".permutation(size)",
        ".permutation(size) * 0 + np.arange(size)",
        ("data/test_batches.py",),
    ),
    Fault(
        "every epoch has an order of its own",
        "data/seeds.py",
        "_sequence(seed, epoch, _ORDER)",
        "_sequence(seed, 0, _ORDER)",
        ("data/test_batches.py", "train/test_promises.py"),
    ),
    Fault(
        "a run that goes on draws what it would have drawn",
        "data/batches.py",
        "StepSeeds(seed, number // steps, number % steps)",
        "StepSeeds(seed, number // steps - epochs.start, number % steps)",
        ("data/test_batches.py", "train/test_promises.py"),
    ),
    Fault(
        "integer files are calibrated with training images",
        "train/finish.py",
        "data.train.arrays(CALIBRATION_IMAGES)",
        "data.test.arrays(CALIBRATION_IMAGES)",
        ("train/test_promises.py::test_integer_files_are_calibrated_with_training_images",),
    ),
    Fault(
        "scores are those of the test images",
        "train/finish.py",
        "data.test.batches(task.batch_size)",
        "data.validation.batches(task.batch_size)",
        ("train/test_promises.py::test_scores_are_those_of_the_test_images",),
    ),
    Fault(
        "classes weigh in the loss as the recipe says",
        "losses.py",
        "if self.class_weights is not None:\n            weights",
        "if False:\n            weights",
        ("train/test_promises.py",),
    ),
    Fault(
        "statistics follow by a tenth of each step",
        "models/blocks.py",
        "momentum=BN_MOMENTUM",
        "momentum=0.99",
        ("train/test_promises.py",),
    ),
    Fault(
        "every augmentation draws anew in every step",
        "data/augment.py",
        "    def __call__(self, images, seeds: StepSeeds):",
        "    def __call__(self, images, seeds: StepSeeds):\n        seeds = StepSeeds(0, 0, 0)",
        ("data/test_augment.py",),
    ),
    Fault(
        "pixels are moved before they are coloured and erased, whatever the order of the names",
        "data/augment.py",
        "for stage in _STAGES for name in augment.changes if name in stage]",
        "for name in augment.changes for stage in _STAGES if name in stage]",
        ("data/test_augment.py::test_pixels_are_moved_then_coloured_then_erased_whatever_the_order_of_the_names",),
    ),
    Fault(
        "every image draws an operation of its own",
        "data/policies.py",
        "keras.random.randint(count, 0, len(OPERATIONS), seed=seed)",
        "ops.broadcast_to(keras.random.randint((), 0, len(OPERATIONS), seed=seed), count)",
        ("data/test_policies.py",),
    ),
    Fault(
        "shears turn about the corner, not about the middle of its pixel",
        "data/operations.py",
        "shear_x / 2",
        "0 * shear_x",
        ("data/test_policies.py",),
    ),
    Fault(
        "targets of CutMix are the shares of the pixels that were pasted",
        "data/mixing.py",
        'kept = 1 - ops.mean(ops.cast(box, "float32"), axis=(1, 2))',
        "kept = 1 - sides[:, 0] ** 2",
        ("data/test_mixing.py",),
    ),
    Fault(
        "Mixup makes no NaN of a small alpha",
        "data/mixing.py",
        "ops.log(larger) + ops.log(uniform) / alpha",
        "ops.log(larger * uniform ** (1 / alpha))",
        ("data/test_mixing.py",),
    ),
    Fault(
        "boxes have any place with equal chances",
        "data/boxes.py",
        "(whole - sides + 1)",
        "(whole - sides) / 2",
        ("data/test_boxes.py",),
    ),
    Fault(
        "of a rare class no image comes again before the others came",
        "data/seeds.py",
        "[rng.permutation(members) for _ in range(share // len(members) + 1)]",
        "[rng.choice(members, share)]",
        ("data/test_batches.py",),
    ),
    Fault(
        "binary cross-entropy is smoothed as cross-entropy is",
        "losses.py",
        "keras.losses.binary_crossentropy(smooth, y_pred, from_logits=True)",
        "keras.losses.binary_crossentropy(y_true, y_pred, True, self.label_smoothing)",
        ("test_losses.py",),
    ),
    Fault(
        "void stays void while masks move",
        "data/augment.py",
        'ops.cast(masks[..., 0], "uint8") - 1',
        'ops.cast(masks[..., 0], "uint8")',
        ("data/test_augment.py",),
    ),
    Fault(
        "a flip that alternates shows each image both ways in two epochs",
        "data/flips.py",
        '(sums + ops.cast(seed.epoch, "int32")) % 2',
        "sums % 2",
        ("data/test_augment.py::test_an_alternating_flip_shows_each_image_both_ways_in_two_epochs",),
    ),
    Fault(
        "each epoch sees other parts of the pictures",
        "data/seeds.py",
        "_sequence(seed, epoch, _PARTS)",
        "_sequence(seed, 0, _PARTS)",
        ("data/test_random_parts.py",),
    ),
    Fault(
        "validation judges the head alone",
        "train/auxiliary.py",
        "        if training:",
        "        if y is not None:",
        ("train/test_promises.py::test_a_recipe_does_what_it_says_in[auxiliary_weight]",),
    ),
    Fault(
        "a kernel of a convolution is a matrix to its outputs",
        "train/muon.py",
        "ops.reshape(x, (-1, x.shape[-1]))",
        "ops.reshape(x, (x.shape[0], -1))",
        ("train/test_muon.py",),
    ),
    Fault(
        "weight decay spares all but kernels",
        "train/optimizer.py",
        "weight_decay=settings.weight_decay,",
        "weight_decay=0.0,",
        ("train/test_loop.py::test_optimizer_warms_up_follows_a_cosine_and_spares_vectors",),
    ),
    Fault(
        "the cosine ends at zero after the last step",
        "train/optimizer.py",
        "rest = max(1, schedule.epochs * steps - warmup)",
        "rest = max(1, schedule.epochs * steps)",
        ("train/test_loop.py::test_optimizer_warms_up_follows_a_cosine_and_spares_vectors",),
    ),
    Fault(
        "label smoothing is the recipe's",
        "tasks/classification.py",
        "options.label_smoothing, weights)",
        "0.0, weights)",
        ("train",),
    ),
    Fault(
        "the page of mistakes shows names from anywhere as text",
        "escape.py",
        "return escape_html(printable(text))",
        "return printable(text)",
        ("report/test_mistakes.py", "test_escape.py::test_html_shows_the_text_as_it_is_between_tags_and_in_quotes"),
    ),
    Fault(
        "each picture of the page of mistakes stands with its own classes",
        "report/mistakes.py",
        "dict(zip(numbers.tolist(), read(numbers), strict=True))",
        "dict(zip(numbers.tolist(), read(numbers)[::-1], strict=True))",
        ("report/test_mistakes.py",),
    ),
    Fault(
        "a file's path goes with a mistake",
        "commands/evaluate.py",
        "files=split.files,",
        "files=None,",
        ("commands/test_evaluate.py::test_the_folder_has_the_numbers_tables_and_pictures",),
    ),
    Fault(
        "the test of a folder without splits is the same whatever the seed",
        "data/listing.py",
        'division.test_fraction, 0, "test_fraction")',
        'division.test_fraction, division.seed, "test_fraction")',
        ("data/test_layouts.py",),
    ),
    Fault(
        "copies of a picture are held out together",
        "data/listing.py",
        "groups = copies if keys is None else join(copies, keys)",
        "groups = np.arange(len(copies)) if keys is None else join(keys)",
        ("data/test_layouts.py",),
    ),
    Fault(
        "pictures of one key stay in one split",
        "data/listing.py",
        "else join(copies, keys)",
        "else copies",
        ("data/test_division.py",),
    ),
    Fault(
        "a class that is drawn in groups gets its share",
        "data/division.py",
        "            owed -= sizes[group]",
        "            owed = 0.0",
        ("data/test_division.py",),
    ),
    Fault(
        "each class keeps something to train on",
        "data/division.py",
        "                held_out[groups == groups[np.argmax(members)]] = False",
        "                pass",
        ("data/test_division.py",),
    ),
    Fault(
        "a file that is called otherwise is known by what is in it",
        "images/finding.py",
        "        with Image.open(path, formats=FORMATS):\n            return True",
        "        return False",
        ("data/test_layouts.py",),
    ),
    Fault(
        "labels that are numbers are sorted as numbers",
        "data/tables.py",
        "sorted(classes, key=numbers.__getitem__)",
        "classes",
        ("data/test_tables.py",),
    ),
    Fault(
        "a few files say which they are",
        "data/split.py",
        "tuple(self.files[index] for index in chosen)",
        "self.files[: len(chosen)]",
        ("data/test_layouts.py",),
    ),
    Fault(
        "a picture that comes or goes moves hardly another to another split",
        "data/division.py",
        'line[np.argsort(places[line], kind="stable")]',
        "line[np.random.default_rng(seed).permutation(len(line))]",
        ("data/test_division.py",),
    ),
    Fault(
        "pictures of the test are decoded before training",
        "train/loop.py",
        "        split.check()",
        "        pass",
        ("train/test_loop.py::test_a_broken_picture_of_the_test_is_told_before_training",),
    ),
    Fault(
        "weights are had before pictures are read",
        "train/loop.py",
        "            fetch_source(*resolve(model, weights))",
        "            resolve(model, weights)",
        ("commands/test_train_command.py",),
    ),
    Fault(
        "saturated colours make no negative pixels",
        "data/augment.py",
        "_SHARES = dict(value_range=(0, 1))",
        "_SHARES = dict(value_range=(0, 255))",
        ("data/test_data.py",),
    ),
    Fault(
        "a full disk is no fault of a layer",
        "edge/convert.py",
        "if NO_ROOM.search(",
        "if False and NO_ROOM.search(",
        ("edge/test_convert.py",),
    ),
    Fault(
        "a card names the command that makes its recipe again",
        "train/command.py",
        "and name not in given",
        "",
        ("train/test_command.py",),
    ),
    Fault(
        "a run goes on with its own files alone",
        "train/splits.py",
        "    if told:",
        "    if False:",
        ("train/test_splits.py",),
    ),
    Fault(
        "a shuffle takes no more memory than its bound",
        "data/batches.py",
        "SHUFFLE_BYTES // max(1,",
        "SHUFFLE_BUFFER // max(1,",
        ("data/test_layouts.py",),
    ),
    Fault(
        "what a warning tells of is not told twice",
        "console.py",
        "    if any(isinstance(other, _Warnings) for other in log.handlers):",
        "    if False:",
        ("commands/test_cli.py::test_a_warning_is_shown_once_in_a_command_inside_a_command",),
    ),
    Fault(
        "a run goes on with its own classes alone",
        "train/run_directory.py",
        "        if old != new:",
        "        if False:",
        ("train/test_damaged_runs.py",),
    ),
    Fault(
        "the state of an optimizer is made once",
        "train/checkpoints.py",
        "    if not model.optimizer.built:",
        "    if True:",
        ("train/test_checkpoints.py",),
    ),
    Fault(
        "the best epoch is kept, not the last",
        "train/callbacks.py",
        "if best_epoch(self.rows, self.monitor) == epoch + 1:",
        "if True:",
        ("train/test_checkpoints.py", "train/test_loop.py::test_best_epoch_is_kept_not_the_last"),
    ),
    # devices and hosts
    Fault(
        "each batch of validation is judged where several devices compute it",
        "train/steps.py",
        "held_out[_read(number)]",
        "held_out[0]",
        ("train/test_devices.py::test_eight_devices_train_as_one",),
    ),
    Fault(
        "a last batch that the devices do not divide is judged whole",
        "data/shares.py",
        "axes = () if count % self._mesh.size else (self._axis,)",
        "axes = (self._axis,)",
        ("train/test_devices.py::test_eight_devices_train_as_one",),
    ),
    Fault(
        "a batch that the devices do not divide is refused",
        "train/devices.py",
        "if batch_size % count:",
        "if count > batch_size:",
        ("train/test_devices.py::test_a_batch_that_devices_do_not_divide_is_told",),
    ),
    Fault(
        "the devices that are taken by themselves divide a batch",
        "train/devices.py",
        "if batch_size % number == 0)",
        "if batch_size >= number)",
        ("train/test_devices.py::test_auto_takes_as_many_as_divide_a_batch",),
    ),
    Fault(
        "processes that train together have the same settings",
        "train/hosts.py",
        "if theirs[0].get(name) != other.get(name)]",
        "if name not in theirs[0]]",
        ("train/test_devices.py::test_what_differs_between_processes_is_named",),
    ),
    Fault(
        "processes that train together have the same code",
        "train/hosts.py",
        "str(path.relative_to(root)).encode() + path.read_bytes()",
        "str(path.relative_to(root)).encode()",
        ("train/test_devices.py::test_code_is_compared_by_what_it_says",),
    ),
    Fault(
        "void counts in no confusion",
        "metrics.py",
        "valid = mask != VOID",
        "valid = mask <= VOID",
        ("test_losses.py",),
    ),
    Fault(
        "each call of a shared layer gets the copy with its own norm",
        "surgery/rewrite.py",
        "layer.copies.get(index, layer.layer)",
        "layer.copies.get(len(layer.copies) - 1 - index, layer.layer)",
        ("surgery/test_parting.py",),
    ),
    Fault(
        "class weights follow the median frequency",
        "losses.py",
        "np.median(frequency) / frequency",
        "np.mean(frequency) / frequency",
        ("test_losses.py",),
    ),
)


class FirstFailure:
    """A plugin of pytest that remembers what failed first."""

    name = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.name:
            self.name = f"{report.nodeid} (cannot be collected)"


def copy_tree(tree: Path, scratch: Path) -> None:
    """What the tests need of the tree, without what was trained, which is linked."""
    for name in COPIED:
        source, target = tree / name, scratch / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name in LINKED:
        (scratch / name).symlink_to(tree / name)


def run_tests(scratch: Path, tests: list[str], answer: Path) -> None:
    """In the process made for one fault: runs the tests and writes which one failed first."""
    import pytest

    os.chdir(scratch)
    os.environ["PYTHONPATH"] = str(scratch)
    sys.path.insert(0, str(scratch))
    sys.dont_write_bytecode = True
    sink = os.open(answer.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    failure = FirstFailure()
    code = pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests], plugins=[failure])
    answer.write_text(failure.name or ("" if code == 0 else f"pytest ended with {int(code)}"))
    sys.stdout.flush()
    os._exit(0)


def judge(scratch: Path, tests: list[str], answer: Path) -> str:
    """Runs the tests in a process of their own; the name of the first that fails, "" if none does."""
    child = os.fork()
    if child == 0:
        try:
            run_tests(scratch, tests, answer)
        finally:
            os._exit(1)
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return answer.read_text() if answer.exists() else "the process died"
        time.sleep(0.2)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return f"no end after {LIMIT_SECONDS} s"


def preload() -> None:
    """Loads what is slow to load and computes nothing, so that this process may be copied."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    for name in PRELOADED:
        importlib.import_module(name)


def main() -> None:
    """Prints a row for each fault as it is judged, then how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="Tree whose tests and product are taken.")
    parser.add_argument("--match", default="", help="Only faults whose promise or file holds this text.")
    parser.add_argument("--whole", action="store_true", help="Run all default tests where the nearest miss a fault.")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.match in fault.promise or options.match in fault.file]
    tree = options.tree.absolute()
    for fault in faults:
        count = (tree / "kzoo" / fault.file).read_text(encoding="utf-8").count(fault.old)
        if count != 1:
            sys.exit(f"{fault.file} holds {fault.old!r} {count} times; mend the fault {fault.promise!r}")
    preload()
    caught = 0
    with tempfile.TemporaryDirectory() as directory:
        scratch, answers = Path(directory, "tree"), Path(directory, "answers")
        scratch.mkdir()
        answers.mkdir()
        copy_tree(tree, scratch)
        print("| promise that is broken | file | caught by | s |\n| --- | --- | --- | ---: |", flush=True)
        for number, fault in enumerate(faults):
            file = scratch / "kzoo" / fault.file
            whole = file.read_text(encoding="utf-8")
            file.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
            paths = [f"tests/{test}" for test in fault.tests if (scratch / "tests" / test.split("::")[0]).exists()]
            began = time.monotonic()
            found = judge(scratch, paths, answers / f"{number}.txt")
            if not found and options.whole:
                found = judge(scratch, ["tests"], answers / f"{number}_whole.txt")
            file.write_text(whole, encoding="utf-8")
            caught += bool(found)
            row = (fault.promise, fault.file, found.removeprefix("tests/") or "**missed**")
            print(f"| {' | '.join(row)} | {time.monotonic() - began:.0f} |", flush=True)
    print(f"\n{caught} of {len(faults)} caught")


if __name__ == "__main__":
    main()
