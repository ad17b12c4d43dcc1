"""FCOS and RetinaNet by name, on `backbone=`, by default `resnet50` as in torchvision.

| names | layout |
| --- | --- |
| `fcos` | Tian et al. 2019 (arXiv:1904.01355, 2006.09214), group normalisation in the heads |
| `retinanet` | Lin et al. 2017 (arXiv:1708.02002): torchvision's first one, without normalisation in its heads |
| `retinanet_v2` | torchvision's second: group normalisation there, and P6 from the backbone's last map |
"""

from dataclasses import replace

from kzoo.models import resnet  # noqa: F401  registers the default backbone
from kzoo.models.detector import DetectorConfig, FCOSConfig, RetinaNetConfig, features, head
from kzoo.registry import DETECTION, Entry, register

VARIANTS: dict[str, DetectorConfig] = {
    "fcos": FCOSConfig(),
    "retinanet": RetinaNetConfig(),
    "retinanet_v2": replace(RetinaNetConfig(), head_norm="group", extra="stride"),
}
NARROW = dict(
    backbone="resnet18", backbone_options=dict(widths=(8, 12, 16, 24)), channels=16, head_depth=1, head_groups=4
)
NARROW_OF = {"fcos": {}, "retinanet": dict(anchor_size=1.0)}  # boxes of the size of the small images
PAPERS = {"fcos": ("1904.01355", "2006.09214"), "retinanet": ("1708.02002",)}

for _name, _config in VARIANTS.items():
    register(
        Entry(
            name=_name,
            family=_config.kind,
            task=DETECTION,
            config=_config,
            features=features,
            head=head,
            input_shape=(800, 1066, 3),  # what torchvision makes of 480×640
            num_classes=91,
            preprocessing="torch",
            papers=PAPERS[_config.kind],
            narrow=NARROW | NARROW_OF[_config.kind],
            narrow_size=64,
        )
    )
