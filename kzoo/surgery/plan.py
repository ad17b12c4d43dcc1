"""Which layers that scale and shift channels fold into a neighbour exactly, and why the others do not."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from kzoo.surgery.affine import Affine
from kzoo.surgery.level import PADDINGS, RESHAPES, Level, Refused
from kzoo.surgery.linear import CONVOLUTIONS, LINEAR, TRANSPOSED, linear_reason, mixes, pads

FEW_CHANNELS = 4
"""Maps of so many channels or fewer, which are images, may get one more that makes the borders exact. The 1x1
convolution that adds it reads and writes the map once, as what it replaces does: wider maps would gain nothing."""


@dataclass
class FoldPlan:
    """What folding will do to a model; a layer of a model inside is called `inner/layer`.

    Attributes:
        folds: layer that goes -> the layer that takes it in; its own name if another layer gets that.
        inside: layers with a batch normalisation of their own that they fold themselves.
        kept: layer that stays -> the reason.
    """

    folds: dict[str, str] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def add(self, prefix: str, plan: "FoldPlan") -> None:
        """Takes in what will be done to a model inside."""
        self.folds |= {f"{prefix}/{name}": f"{prefix}/{into}" for name, into in plan.folds.items()}
        self.inside += [f"{prefix}/{name}" for name in plan.inside]
        self.kept |= {f"{prefix}/{name}": reason for name, reason in plan.kept.items()}

    def __str__(self) -> str:
        lines = [
            f"{name} becomes a convolution" if name == into else f"{name} folds into {into}"
            for name, into in self.folds.items()
        ]
        lines += [f"{name} folds by itself" for name in self.inside]
        return "\n".join(lines + [f"{name} stays: {reason}" for name, reason in self.kept.items()])


class Folder:
    """Decides for one graph what folds where.

    A layer that scales and shifts goes into the linear layer before it, or else is merged into one of its kind
    before it, or else goes into the linear layer behind it; layers that commute with it may stand in between.

    Args:
        level: the graph.
        read: function that tells what the named layer computes if it scales and shifts channels, and None if it does
            something else; raises `Refused` for one that would but does something else here.
        norms: whether layers fold into those before them too, and layers with a method `folded` by themselves.

    Attributes:
        plan: plan of this graph alone.
        before, after: linear layer -> what its input or output goes through, to be folded in.
        merged: layer that stays -> what it computes together with those merged into it.
        constants: layer that goes -> the linear layer that takes it in, where a channel for the offset replaces it.
    """

    def __init__(self, level: Level, read: Callable[[Level, str], Affine | None], norms: bool):
        self.level = level
        self.norms = norms
        self.plan = FoldPlan()
        self.before: dict[str, Affine] = {}
        self.after: dict[str, Affine] = {}
        self.constants: dict[str, str] = {}
        self.affines: dict[str, Affine] = {}
        for name in level.graph.calls:
            if norms and callable(getattr(level.operations[name], "folded", None)):
                self.plan.inside.append(name)
                continue
            try:
                affine = read(level, name)
            except Refused as reason:
                self.plan.kept[name] = str(reason)
            else:
                if affine is not None:
                    self._fold(name, affine)
        for name in [name for name in self.affines if name in self.plan.kept]:
            self._fold_ahead(name)
        gone = set(self.plan.folds.values()) & set(self.plan.kept)
        self.merged = {name: self.affines[name] for name in gone}

    def _fold(self, name: str, affine: Affine) -> None:
        """Folds a layer into the linear layer before it, or into one of its kind."""
        self.affines[name] = affine
        try:
            into = self._find_before(name)
        except Refused as reason:
            self.plan.kept[name] = str(reason)
            return
        self.plan.folds[name] = into
        found = self.affines if into in self.affines else self.after
        found[into] = found[into].then(affine) if into in found else affine

    def _find_before(self, name: str) -> str:
        at = name
        while True:
            source = self.level.source(at)
            layer = self.level.operations[source]
            if (source in self.plan.kept and source in self.affines) or (self.norms and self._takes(source)):
                self.level.check_before(at)
                self._check_dtype(name, source)
                return source
            if type(layer) in PADDINGS and self.affines[name].offsets:
                raise Refused(f"{source} before it pads zeros, which it shifts")
            if source not in self.plan.folds and type(layer) not in PADDINGS and not self.level.commutes(source):
                raise Refused(f"{source} before it is {self.level.kind(source)}, not a convolution or dense layer")
            self.level.check_before(at)
            at = source

    def _takes(self, name: str) -> bool:
        """Whether the output of the layer can be scaled and shifted by its weights."""
        layer = self.level.operations[name]
        if callable(getattr(layer, "absorb", None)):
            return True
        if type(layer) not in LINEAR:
            return False
        if reason := linear_reason(layer):
            raise Refused(reason)
        if layer.activation is not keras.activations.linear:
            raise Refused(f"{name} before it has an activation, which is not linear")
        return True

    def _check_dtype(self, name: str, into: str) -> None:
        ours, theirs = (getattr(self.level.operations[n], "compute_dtype", None) for n in (name, into))
        if None not in (ours, theirs) and ours != theirs:
            raise Refused(f"it computes in {ours} and {into} in {theirs}")

    def _fold_ahead(self, name: str) -> None:
        """Folds a layer, with all that has been merged into it, into the linear layer behind it."""
        affine = self.affines[name]
        merged = [other for other, into in self.plan.folds.items() if into == name]
        try:
            into, constant, affine = self._find_behind(name, affine, merged)
        except Refused as reason:
            if self.norms:
                self.plan.kept[name] += f"; {reason}"
                return
            for other in merged:
                del self.plan.folds[other]
            self.plan.kept |= dict.fromkeys([name, *merged], str(reason))
            return
        del self.plan.kept[name]
        self.plan.folds |= dict.fromkeys([name, *merged], into)
        self.before[into] = affine
        if constant:
            self.constants[name] = into

    def _find_behind(self, name: str, affine: Affine, merged: list[str]) -> tuple[str, bool, Affine]:
        """The linear layer, whether it needs a channel that carries the offset, and what its channels go through."""
        at, padded, reshaped = name, False, False
        while True:
            at = self.level.behind(at)
            layer = self.level.operations[at]
            if type(layer) in LINEAR:
                break
            padded = padded or type(layer) in PADDINGS
            reshaped = reshaped or type(layer) in RESHAPES
            times = self.level.repeats(at)
            affine = affine.tile(times or 1)
            passes = at in merged or type(layer) in PADDINGS or times or self.level.commutes(at)
            if not passes or getattr(layer, "data_format", None) == "channels_first":
                raise Refused(f"{at} behind it is {self.level.kind(at)}, not a convolution or dense layer")
        if reason := linear_reason(layer):
            raise Refused(reason)
        self._check_dtype(name, at)
        if affine.reorders and not mixes(layer):
            raise Refused(f"{at} behind it does not mix the channels that it reorders")
        shapes = [call.input_shapes[0] for call in self.level.graph.calls[at]]
        if not affine.offsets or not (padded or any(pads(layer, shape) for shape in shapes)):
            return at, False, affine
        if not mixes(layer) or type(layer) not in CONVOLUTIONS + TRANSPOSED or reshaped:
            raise Refused(f"{at} behind it reads padded zeros, and convolves its channels apart")
        if len(affine.scale) > FEW_CHANNELS:
            raise Refused(
                f"{at} behind it reads padded zeros, and one more channel to make them exact pays up to {FEW_CHANNELS}"
            )
        return at, True, affine
