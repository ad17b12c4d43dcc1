"""RetinaNet: Lin et al. 2017 (arXiv:1708.02002), on `backbone=`, by default `resnet50` as in torchvision.

`retinanet` is torchvision's first one, without normalisation in its heads; `retinanet_v2` has group normalisation
there and P6 from the backbone's last map.
"""

from dataclasses import replace

from kzoo.models import resnet  # noqa: F401  registers the default backbone
from kzoo.models.detector import RetinaNetConfig, features, head
from kzoo.registry import DETECTION, Entry, register

VARIANTS: dict[str, RetinaNetConfig] = {
    "retinanet": RetinaNetConfig(),
    "retinanet_v2": replace(RetinaNetConfig(), head_norm="group", extra="stride"),
}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family="retinanet",
            task=DETECTION,
            config=_config,
            features=features,
            head=head,
            input_shape=(800, 1066, 3),  # what torchvision makes of 480×640
            num_classes=91,
            preprocessing="torch",
            papers=("1708.02002",),
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
