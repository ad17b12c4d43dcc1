"""How deep in a model each layer is, for learning rates that fall towards the image."""

import re

import keras

from kzoo.errors import InvalidValueError
from kzoo.graph import read_graph
from kzoo.models.transfer import OWN_LAYERS
from kzoo.taps import tap_names

# What begins a new depth: a block or module, a stage of convolutions alone (VGG, U-Net), a convolution of simple_cnn
_BLOCK = re.compile(r"(stage\d+_(?:block|unit|module)\d+|inception\d\w|mixed\d\w)_.*|(stage\d+)_conv\d+|(conv\d+)")


def depth_of_layers(model: keras.Model) -> dict[str, int]:
    """The depth of every layer that has weights: 0 for the stem, then block by block, and the last for the head.

    Blocks are residual blocks, Swin's and NAT's, Inception modules, the stages of VGG and of a plain U-Net, each of
    which counts one. What stands between two of them (patch merging, non-local blocks, a last normalisation) belongs
    to the one before. Head, auxiliary heads, decoders and the normalisations of their taps, which
    `kzoo.freeze_backbone` leaves to learn, have the greatest depth together. No layer is less deep than one that it
    reads.

    Args:
        model: from `kzoo.build`, from a file of such a model, or from `kzoo.replace_head`.

    Returns:
        Name of the layer -> depth, in the order of the graph.

    Raises:
        InvalidValueError: the model is none of the zoo.

    Example:
        >>> depths = depth_of_layers(kzoo.build("resnet50"))
        >>> depths["stem_conv"], depths["stage1_block1_conv1"], depths["stage4_block3_bn3"], depths["head_dense"]
        (0, 1, 16, 17)
        >>> rates = {name: 1e-3 * 0.75 ** (max(depths.values()) - depth) for name, depth in depths.items()}
    """
    if not tap_names(model):
        raise InvalidValueError(f"{model.name} has no taps, so it is no model of the zoo; pass what kzoo.build gives")
    weighted = {layer.name for layer in model.layers if layer.weights}
    blocks: dict[str, int] = {}
    depths: dict[str, int] = {}
    first = 0  # the depth of the first block: 1 behind a stem with weights
    for name, calls in read_graph(model).calls.items():
        if OWN_LAYERS.fullmatch(name):
            continue
        if match := _BLOCK.fullmatch(name):
            block = next(filter(None, match.groups()))
            depths[name] = blocks.setdefault(block, first + len(blocks))
        else:
            sources = (source for call in calls for source, _, _ in call.sources)
            depths[name] = max((depths.get(source, 0) for source in sources), default=0)
            first = first or int(name in weighted and not blocks)
    last = 1 + max(depths.values())
    return {name: depths.get(name, last) for name in (layer.name for layer in model.layers) if name in weighted}
