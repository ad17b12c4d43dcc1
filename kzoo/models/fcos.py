"""FCOS: Tian et al. 2019 (arXiv:1904.01355, 2006.09214), on `backbone=`, by default `resnet50` as in torchvision."""

from kzoo.models import resnet  # noqa: F401  registers the default backbone
from kzoo.models.detector import FCOSConfig, features, head
from kzoo.registry import DETECTION, Entry, register

VARIANTS: dict[str, FCOSConfig] = {"fcos": FCOSConfig()}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="fcos",
            task=DETECTION,
            config=_config,
            features=features,
            head=head,
            input_shape=(800, 1066, 3),  # what torchvision makes of 480×640
            num_classes=91,
            preprocessing="torch",
            papers=("1904.01355", "2006.09214"),
            listed=False,
            narrow=dict(
                backbone="resnet18",
                backbone_options=dict(widths=(8, 12, 16, 24)),
                channels=16,
                head_depth=1,
                head_groups=4,
            ),
        )
    )
