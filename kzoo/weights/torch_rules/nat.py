"""Names of the authors' neighborhood attention transformers."""

import re

import keras

_IN_BLOCK = {
    "norm1": "norm1",
    "attention": "attn",
    "attention/qkv": "attn.qkv",
    "attention/proj": "attn.proj",
    "attention_scale": "gamma1",
    "norm2": "norm2",
    "mlp_dense1": "mlp.fc1",
    "mlp_dense2": "mlp.fc2",
    "mlp_scale": "gamma2",
}
_OUTSIDE = {
    "stem_conv1": "patch_embed.proj.0",
    "stem_conv2": "patch_embed.proj.1",
    "stem_norm": "patch_embed.norm",
    "final_norm": "norm",
    "head_dense": "head",
}
_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(.+)")
_DOWNSAMPLE = re.compile(r"stage(\d+)_downsample_(conv|norm)")


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """Names of a layer of the zoo; empty where it is not known."""
    if match := _BLOCK.fullmatch(layer):
        stage, block, part = int(match[1]), int(match[2]), _IN_BLOCK.get(match[3])
        return (f"levels.{stage - 1}.blocks.{block - 1}.{part}",) if part else ()
    if match := _DOWNSAMPLE.fullmatch(layer):  # at the end of the stage before
        part = {"conv": "reduction", "norm": "norm"}[match[2]]
        return (f"levels.{int(match[1]) - 2}.downsample.{part}",)
    return (_OUTSIDE[layer],) if layer in _OUTSIDE else ()
