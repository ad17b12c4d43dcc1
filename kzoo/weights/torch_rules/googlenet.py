"""Names of torchvision's GoogLeNet."""

import re

import keras

_KIND = r"(?P<kind>conv|bn)"
_RULES: tuple[tuple[re.Pattern, str], ...] = tuple(
    (re.compile(pattern), template)
    for pattern, template in (
        (rf"stem_{_KIND}(?P<index>\d)", "conv{index}.{kind}"),
        (rf"inception(?P<module>\d\w)_branch1_{_KIND}", "inception{module}.branch1.{kind}"),
        (rf"inception(?P<module>\d\w)_branch4_{_KIND}", "inception{module}.branch4.1.{kind}"),  # 0 is the pool
        (rf"inception(?P<module>\d\w)_branch(?P<branch>\d)_{_KIND}1", "inception{module}.branch{branch}.0.{kind}"),
        (rf"inception(?P<module>\d\w)_branch(?P<branch>\d)_{_KIND}2", "inception{module}.branch{branch}.1.{kind}"),
        (rf"auxiliary(?P<number>\d)_{_KIND}", "aux{number}.conv.{kind}"),
        (r"auxiliary(?P<number>\d)_dense", "aux{number}.fc1"),
        (r"auxiliary(?P<number>\d)_head_dense", "aux{number}.fc2"),
        (r"head_dense", "fc"),
    )
)


def layer_names(layer: str, model: keras.Model) -> tuple[str, ...]:
    """The name of a layer of the zoo; empty where it is not known."""
    matches = ((pattern.fullmatch(layer), template) for pattern, template in _RULES)
    return tuple(template.format(**match.groupdict()) for match, template in matches if match)
