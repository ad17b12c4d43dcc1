"""Writes window_attention.npz: what timm's and torchvision's window attention compute with seeded weights."""

from pathlib import Path

import numpy as np
import torch
from make_timm_goldens import with_seeded_weights
from seeded import seeded_map
from timm.models.swin_transformer import SwinTransformerBlock
from torchvision.models.swin_transformer import ShiftedWindowAttention

# name -> (library, map, window, shift). timm rolls a map before it pads it, unlike the authors and torchvision, so
# a shifted map whose size is no multiple of the window comes from torchvision. Only timm clamps windows.
CASES = {
    "regular": ("timm", (14, 21), 7, 0),
    "shifted": ("timm", (14, 21), 7, 3),
    "padded": ("timm", (10, 9), 4, 0),
    "clamped": ("timm", (5, 6), 7, 3),
    "sideways": ("timm", (5, 14), 7, 3),
    "padded_and_shifted": ("torchvision", (10, 9), 4, 2),
}
CHANNELS, HEADS = 24, 3


@torch.no_grad()
def main() -> None:
    goldens = {}
    for name, (library, size, window, shift) in CASES.items():
        x = torch.from_numpy(seeded_map(2, *size, CHANNELS))
        if library == "timm":
            block = SwinTransformerBlock(CHANNELS, size, HEADS, window_size=window, shift_size=shift)
            with_seeded_weights(block.attn)
            goldens[name] = block._attn(x).numpy()
        else:
            attention = ShiftedWindowAttention(CHANNELS, [window] * 2, [shift] * 2, HEADS)
            goldens[name] = with_seeded_weights(attention)(x).numpy()
        print(name, goldens[name].shape, f"largest {np.abs(goldens[name]).max():.4g}")
    np.savez_compressed(Path(__file__).with_name("window_attention.npz"), **goldens)


if __name__ == "__main__":
    main()
