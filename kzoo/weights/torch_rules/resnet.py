"""Names of timm's and others' ResNets."""

import re

import keras

_BLOCK = r"stage(?P<stage>\d+)_block(?P<block>\d+)"
_RULES: tuple[tuple[re.Pattern, tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), templates)
    for pattern, templates in (
        ("stem_conv", ("conv1",)),
        ("stem_bn", ("bn1",)),
        (rf"{_BLOCK}_(?P<kind>conv|bn)(?P<index>\d)", ("layer{stage}.{block}.{kind}{index}",)),
        (rf"{_BLOCK}_shortcut_conv", ("layer{stage}.{block}.downsample.0", "layer{stage}.{block}.shortcut.0")),
        (rf"{_BLOCK}_shortcut_bn", ("layer{stage}.{block}.downsample.1", "layer{stage}.{block}.shortcut.1")),
        (rf"{_BLOCK}_attention/reduce", ("layer{stage}.{block}.se.fc1", "layer{stage}.{block}.se_module.fc1")),
        (rf"{_BLOCK}_attention/expand", ("layer{stage}.{block}.se.fc2", "layer{stage}.{block}.se_module.fc2")),
        (rf"{_BLOCK}_attention/channel/reduce", ("layer{stage}.{block}.se.channel.fc1",)),
        (rf"{_BLOCK}_attention/channel/expand", ("layer{stage}.{block}.se.channel.fc2",)),
        (rf"{_BLOCK}_attention/spatial/conv", ("layer{stage}.{block}.se.spatial.conv.conv",)),
        (rf"{_BLOCK}_attention/spatial/batch_norm", ("layer{stage}.{block}.se.spatial.conv.bn",)),
        ("head_dense", ("fc", "linear", "classifier")),
    )
)


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """Names of a layer of the zoo, the commonest first; empty where it is not known."""
    for pattern, templates in _RULES:
        match = pattern.fullmatch(layer)
        if match:
            groups = match.groupdict()
            if "block" in groups:
                groups["block"] = int(groups["block"]) - 1
            return tuple(template.format(**groups) for template in templates)
    return ()
