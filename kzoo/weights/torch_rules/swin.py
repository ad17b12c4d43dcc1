"""Names of timm's (0.9 and later) and torchvision's Swin transformers."""

import re

import keras

# layer of a block -> timm, then torchvision where it differs
_IN_BLOCK = {
    "norm1": ("norm1",),
    "attention/qkv": ("attn.qkv",),
    "attention/position_bias": ("attn",),
    "attention/proj": ("attn.proj",),
    "norm2": ("norm2",),
    "mlp_dense1": ("mlp.fc1", "mlp.0"),
    "mlp_dense2": ("mlp.fc2", "mlp.3"),
}
_OUTSIDE = {
    "stem_conv": ("patch_embed.proj", "features.0.0"),
    "stem_norm": ("patch_embed.norm", "features.0.2"),
    "final_norm": ("norm",),
    "head_dense": ("head.fc", "head"),
}
_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(.+)")
_DOWNSAMPLE = re.compile(r"stage(\d+)_downsample_(norm|dense)")


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """Names of a layer of the zoo, timm's first; empty where it is not known."""
    if match := _BLOCK.fullmatch(layer):
        stage, block, parts = int(match[1]), int(match[2]) - 1, _IN_BLOCK.get(match[3])
        if parts is None:
            return ()
        return f"layers.{stage - 1}.blocks.{block}.{parts[0]}", f"features.{2 * stage - 1}.{block}.{parts[-1]}"
    if match := _DOWNSAMPLE.fullmatch(layer):
        stage, part = int(match[1]), {"norm": "norm", "dense": "reduction"}[match[2]]
        return f"layers.{stage - 1}.downsample.{part}", f"features.{2 * stage - 2}.{part}"
    return _OUTSIDE.get(layer, ())
