"""Writes nat.npz: what neighborhood attention transformers written here in torch compute with seeded weights.

No public package runs them without compiled kernels, so the networks are written again from the paper
(arXiv:2204.07143), in torch and with the authors' names for the weights: attention looks up the keys of every query
one by one, where kzoo's layer cuts the map into blocks.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_timm_goldens import MEAN, STD
from seeded import seeded, seeded_pictures

KERNEL = 7
MINI = dict(depths=(3, 4, 6, 5), heads=(2, 4, 8, 16), layer_scale=False)
SCALED = dict(depths=(2, 1, 1, 1), heads=(2, 2, 4, 4), layer_scale=True)


class Weights:
    """Seeded weights by name, and what torch computes with them."""

    def __init__(self):
        self.shapes = {}

    def __call__(self, name, *shape):
        self.shapes[name] = shape
        return torch.from_numpy(seeded(name, shape))

    def linear(self, x, name, units):
        return F.linear(x, self(f"{name}.weight", units, x.shape[-1]), self(f"{name}.bias", units))

    def norm(self, x, name):
        channels = x.shape[-1]
        return F.layer_norm(x, (channels,), self(f"{name}.weight", channels), self(f"{name}.bias", channels))

    def halve(self, x, name, filters, bias):
        x = x.permute(0, 3, 1, 2)
        kernel = self(f"{name}.weight", filters, x.shape[1], 3, 3)
        x = F.conv2d(x, kernel, self(f"{name}.bias", filters) if bias else None, stride=2, padding=1)
        return x.permute(0, 2, 3, 1)


def neighbours(length: int) -> torch.Tensor:
    """(length, k): the k nearest positions of each, all of them inside the axis."""
    first = (torch.arange(length) - KERNEL // 2).clamp(0, length - KERNEL)
    return first[:, None] + torch.arange(KERNEL)


def attention(x, weights, name, heads):
    batch, height, width, channels = x.shape
    qkv = weights.linear(x, f"{name}.qkv", 3 * channels).reshape(batch, height, width, 3, heads, -1)
    query, key, value = qkv.unbind(3)  # (B, H, W, heads, d)
    rows, columns = neighbours(height), neighbours(width)
    key, value = (each[:, rows][:, :, :, columns] for each in (key, value))  # (B, H, k, W, k, heads, d)
    logits = torch.einsum("bywhd,bymwnhd->bhywmn", query * query.shape[-1] ** -0.5, key)
    table = weights(f"{name}.rpb", heads, 2 * KERNEL - 1, 2 * KERNEL - 1)
    down = rows - torch.arange(height)[:, None] + KERNEL - 1
    right = columns - torch.arange(width)[:, None] + KERNEL - 1
    logits = logits + table[:, down][..., right].permute(0, 1, 3, 2, 4)  # (heads, H, W, k, k)
    shares = logits.flatten(-2).softmax(-1).reshape(logits.shape)
    y = torch.einsum("bhywmn,bymwnhd->bywhd", shares, value).flatten(-2)
    return weights.linear(y, f"{name}.proj", channels)


def network(x, weights, depths, heads, width, mlp_ratio, classes, layer_scale):
    x = weights.halve(x, "patch_embed.proj.0", width // 2, bias=True)
    x = weights.halve(x, "patch_embed.proj.1", width, bias=True)
    x = weights.norm(x, "patch_embed.norm")
    for level, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        channels = x.shape[-1]
        for block in range(depth):
            name = f"levels.{level}.blocks.{block}"
            scales = [weights(f"{name}.gamma{n}", channels) if layer_scale else 1 for n in (1, 2)]
            x = x + scales[0] * attention(weights.norm(x, f"{name}.norm1"), weights, f"{name}.attn", number)
            y = weights.linear(weights.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1", mlp_ratio * channels)
            x = x + scales[1] * weights.linear(F.gelu(y), f"{name}.mlp.fc2", channels)
        if level < len(depths) - 1:
            x = weights.halve(x, f"levels.{level}.downsample.reduction", 2 * channels, bias=False)
            x = weights.norm(x, f"levels.{level}.downsample.norm")
    return weights.linear(weights.norm(x, "norm").mean((1, 2)), "head", classes)


def images(height: int, width: int) -> torch.Tensor:
    """Two normalised images, channels last."""
    pixels = torch.from_numpy(seeded_pictures(height, width)).float() / 255
    return (pixels - torch.tensor(MEAN)) / torch.tensor(STD)


@torch.no_grad()
def main() -> None:
    goldens = {}
    cases = {
        "nat_mini": ((224, 224), MINI | dict(width=64, mlp_ratio=3, classes=1000)),
        "scaled": ((201, 250), SCALED | dict(width=16, mlp_ratio=2, classes=10)),
    }
    for name, (size, options) in cases.items():
        weights = Weights()
        goldens[name] = network(images(*size), weights, **options).numpy()
        parameters = goldens[f"{name}_parameters"] = sum(int(np.prod(shape)) for shape in weights.shapes.values())
        print(name, goldens[name].shape, f"largest {np.abs(goldens[name]).max():.4g}, {parameters} parameters")
    np.savez_compressed(Path(__file__).with_name("nat.npz"), **goldens)


if __name__ == "__main__":
    main()
