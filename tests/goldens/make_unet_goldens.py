"""Writes unet.npz: what U-Nets of two public packages compute with seeded weights. See README.md for the environment.

- `unet` (PyPI 0.8.1, F. Pérez-García) crops as the paper does, and runs the unpadded cases. Its up-convolution keeps
  the channels, though, and its first convolution has no batch normalisation; both are replaced here by modules of
  the figure, so every size and every step that is computed is the paper's (arXiv:1505.04597, figure 1).
- `monai` (1.6.1)'s `BasicUNet` pads, takes maps of odd sides by repeating the last row and column, and runs the
  padded cases; its up-convolutions are replaced by its own that give as many channels as the skip has.
"""

from pathlib import Path

import numpy as np
import torch
from monai.networks.blocks import UpSample
from monai.networks.nets.basic_unet import BasicUNet, UpCat
from seeded import seeded, seeded_map
from unet import UNet
from unet.conv import ConvolutionalBlock

# name -> options, (batch, height, width, channels); sides that stay even before every pooling
UNPADDED = {
    "unpadded_grey": (dict(levels=3, width=4), (2, 60, 68, 1)),
    "unpadded_bn": (dict(levels=3, width=4, batch_norm=True), (2, 68, 60, 3)),
    "unpadded_figure": (dict(levels=5, width=2), (2, 188, 220, 3)),
}
# five widths, the sides are any
PADDED = {
    "padded": (dict(widths=(4, 6, 8, 10, 12)), (2, 32, 48, 1)),
    "padded_odd": (dict(widths=(4, 6, 8, 10, 12)), (2, 37, 51, 3)),
    "padded_bn": (dict(widths=(4, 8, 6, 12, 10), batch_norm=True), (2, 48, 32, 3)),
    "padded_bn_odd": (dict(widths=(4, 8, 6, 12, 10), batch_norm=True), (2, 41, 27, 1)),
    "nearest": (dict(widths=(4, 8, 6, 12, 10), batch_norm=True, nearest=True), (2, 48, 32, 3)),
    "nearest_odd": (dict(widths=(4, 6, 8, 10, 12), nearest=True), (2, 29, 35, 1)),
}
PAPER = (1, 572, 572, 1)
SAMPLES = slice(3, None, 32)  # of the paper's 388×388 pixels


def unpadded(levels: int, width: int, channels: int, batch_norm: bool = False) -> UNet:
    norm = "batch" if batch_norm else None
    model = UNet(channels, 2, num_encoding_blocks=levels, out_channels_first_layer=width, normalization=norm)
    model.encoder.encoding_blocks[0].conv1 = ConvolutionalBlock(2, channels, width, normalization=norm)
    for block in model.decoder.decoding_blocks:
        filters = block.conv2.conv_layer.out_channels
        block.upsample = torch.nn.ConvTranspose2d(2 * filters, filters, 2, stride=2)
        block.conv1 = ConvolutionalBlock(2, 2 * filters, filters, normalization=norm)
    return model


def padded(widths: tuple[int, ...], channels: int, batch_norm: bool = False, nearest: bool = False) -> BasicUNet:
    options = dict(act="relu", norm="batch" if batch_norm else None, bias=not batch_norm)
    model = BasicUNet(2, channels, 2, (*widths, widths[0]), **options)
    for level in range(4, 0, -1):
        deep, skip = widths[level], widths[level - 1]
        step = UpCat(2, 2 * skip, skip, skip, **options)
        step.upsample = doubling(deep, skip) if nearest else UpSample(2, deep, skip, 2)
        setattr(model, f"upcat_{level}", step)
    return model


def doubling(deep: int, skip: int) -> UpSample:
    """Repetition and the paper's 2×2 convolution, which has its extra row and column of zeros behind the map."""
    conv = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.Conv2d(deep, skip, 2))
    options = dict(pre_conv=None, post_conv=conv, interp_mode="nearest", align_corners=None)
    return UpSample(2, deep, deep, 2, mode="nontrainable", **options)


def with_seeded_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Every weight and statistic from `seeded`, with kernels of He's scale; modules that share one name it once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if tensor.is_floating_point():
            gain = np.float32(2**0.5 if tensor.ndim > 1 else 1)
            tensor.copy_(torch.from_numpy(seeded(name, tuple(tensor.shape)) * gain))
    return model.eval()


@torch.no_grad()
def main() -> None:
    goldens = {}
    cases = {name: (unpadded, *case) for name, case in UNPADDED.items()}
    cases |= {name: (padded, *case) for name, case in PADDED.items()}
    cases["paper"] = (unpadded, dict(levels=5, width=64), PAPER)
    for name, (build, options, shape) in cases.items():
        model = with_seeded_weights(build(channels=shape[-1], **options))
        logits = model(torch.from_numpy(seeded_map(*shape)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        goldens[f"{name}_parameters"] = sum(parameter.numel() for parameter in model.parameters())
        goldens[f"{name}_shape"] = logits.shape
        goldens[name] = logits[:, SAMPLES, SAMPLES] if name == "paper" else logits
        print(name, logits.shape, f"largest {np.abs(logits).max():.4g}, std {logits.std((0, 1, 2))}", end=" ")
        print(f"{goldens[f'{name}_parameters']:,} parameters")
    np.savez_compressed(Path(__file__).with_name("unet.npz"), **goldens)


if __name__ == "__main__":
    main()
