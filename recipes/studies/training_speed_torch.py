"""The networks of training_speed.py in PyTorch, eager and channels last; that study starts this file.

    python recipes/studies/training_speed_torch.py resnet20 128 32 4

prints the number of parameters as JSON, and then for each line that it reads the milliseconds of 4 training steps on a
batch of 128 images of 32×32.
Needs torch alone.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


def conv_bn(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch normalisation."""
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


class Padding(nn.Module):
    """Every second pixel, and zeros for the new channels (arXiv:1512.03385, option A)."""

    def __init__(self, added: int):
        super().__init__()
        self.side = added // 2

    def forward(self, x):
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


class Residual(nn.Module):
    """`relu(shortcut(x) + branch(x))`."""

    def __init__(self, branch: list[nn.Module], shortcut: nn.Module):
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(*branch), shortcut

    def forward(self, x):
        return functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


def resnet20() -> nn.Module:
    """CIFAR's ResNet-20."""
    blocks, inputs = [], 16
    for width in (16, 32, 64):
        for _ in range(3):
            stride = 1 if width == inputs else 2
            branch = [*conv_bn(inputs, width, 3, stride), nn.ReLU(inplace=True), *conv_bn(width, width, 3)]
            blocks.append(Residual(branch, nn.Identity() if stride == 1 else Padding(width - inputs)))
            inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*conv_bn(3, 16, 3), nn.ReLU(inplace=True), *blocks, *head)


def resnet50() -> nn.Module:
    """ResNet-50 with the stride in the 3×3 convolution."""
    blocks, inputs = [], 64
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(depth):
            stride, outputs = 2 if stage and not block else 1, 4 * width
            branch = [*conv_bn(inputs, width, 1), nn.ReLU(inplace=True), *conv_bn(width, width, 3, stride)]
            branch += [nn.ReLU(inplace=True), *conv_bn(width, outputs, 1)]
            same = inputs == outputs
            blocks.append(
                Residual(branch, nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride)))
            )
            inputs = outputs
    stem = [*conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class UNet(nn.Module):
    """U-Net with padding and batch normalisation."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)):
        super().__init__()

        def double(inputs, outputs):
            first, second = conv_bn(inputs, outputs, 3), conv_bn(outputs, outputs, 3)
            return nn.Sequential(*first, nn.ReLU(inplace=True), *second, nn.ReLU(inplace=True))

        self.down = nn.ModuleList(map(double, (3, *widths), widths))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, 2) for deep, fine in pairs)
        self.join = nn.ModuleList(double(2 * fine, fine) for _, fine in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x):
        skips = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = functional.dropout(skips.pop(), 0.5)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


def main(name: str, batch: int, side: int, steps: int) -> None:
    """Trains on one batch and prints how long the steps of each turn took."""
    model = {"resnet20": resnet20, "resnet50": resnet50, "unet": UNet}[name]().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = model(images)
    labels = torch.randint(outputs.shape[1], (batch, *outputs.shape[2:]))
    # what kzoo's recipes do: no decay for vectors
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": kernels, "weight_decay": 1e-4}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    parameters = sum(weight.numel() for weight in model.parameters())

    def turn() -> list[float]:
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            times.append(1000 * (time.perf_counter() - start))
        return times

    turn()
    print(json.dumps({"parameters": parameters, "version": f"PyTorch {torch.__version__}"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
