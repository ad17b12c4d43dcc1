"""Dividing pictures into splits: of each class its share, by seed and name, and what belongs together in one split."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from kzoo.errors import DatasetError, check_pattern, counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """How a dataset is divided where it does not say so itself.

    Attributes:
        test_fraction: share that is held out for the test, whatever the seed.
        validation_fraction: share of the rest that is held out to choose the epoch, by the seed.
        group_by: regular expression of the key in a path; all pictures of one key are in one split. None for no keys.
        seed: of the run.

    Raises:
        InvalidValueError: a pattern that is no regular expression.
    """

    test_fraction: float
    validation_fraction: float
    group_by: str | None
    seed: int

    def __post_init__(self):
        if self.group_by is not None:
            check_pattern("group_by", self.group_by)

    def keys(self, paths: Sequence[str]) -> list[str] | None:
        """The key of each path, which is the pattern's first group or all that it matches; None without a pattern.

        Raises:
            DatasetError: a path that the pattern does not match.

        Example:
            >>> Division(group_by=r"(p\\d+)_", ...).keys(["cat/p7_left.png", "dog/p12_left.png"])
            ['p7', 'p12']
        """
        if self.group_by is None:
            return None
        pattern = re.compile(self.group_by)
        found = [pattern.search(path) for path in paths]
        keys = [match and match[1 if pattern.groups else 0] for match in found]
        if lacking := [path for path, key in zip(paths, keys, strict=True) if key is None]:
            raise DatasetError(
                f"group_by={self.group_by!r} finds no key in {len(lacking)} of {len(paths)} paths, such as "
                f"{lacking[0]}; it must match each path from the dataset's folder"
            )
        return [key or "" for key in keys]

    def check(self, *parts: Sequence[str]) -> None:
        """Raises `DatasetError` if paths of one key are in two of the parts that a dataset itself is divided into."""
        if self.group_by is None:
            return
        first: dict[str, tuple[int, str]] = {}
        for number, paths in enumerate(parts):
            for path, key in zip(paths, self.keys(paths) or (), strict=True):
                before, other = first.setdefault(key, (number, path))
                if before != number:
                    raise DatasetError(
                        f"group_by={self.group_by!r}: the key {key!r} is in two splits of the dataset, in {other} and "
                        f"in {path}; put its pictures into one, or leave group_by out"
                    )


def join(*keys: Sequence | np.ndarray) -> np.ndarray:
    """Numbers of groups: what shares a key of any kind, directly or by way of others, is of one group.

    Args:
        keys: a sequence (n,) for each kind.

    Returns:
        (n,) int, the same number for the members of a group.

    Example:
        >>> join(["a", "b", "c", "d"], [1, 1, 2, 3])
        array([0, 0, 2, 3])
    """
    groups = np.arange(len(keys[0]))
    codes = [np.unique(np.asarray(key), return_inverse=True)[1] for key in keys]
    while True:
        before = groups
        for code in codes:
            smallest = np.full(len(groups), len(groups))
            np.minimum.at(smallest, code, groups)
            groups = smallest[code]
        if (groups == before).all():
            return groups


def strata(labels: np.ndarray) -> np.ndarray:
    """A number (n,) for each example, within which a share is drawn: its class, or the rarest of several labels.

    The rarest first is what iterative stratification does (Sechidis 2011, doi:10.1007/978-3-642-23808-6_10); examples
    without any label are of a number of their own.

    Args:
        labels: numbers of classes (n,), or 0 and 1 of several labels (n, classes).

    Example:
        >>> strata(np.array([[1, 0], [1, 1], [1, 0], [0, 0]]))
        array([0, 1, 0, 2])
    """
    if labels.ndim == 1:
        return labels
    counts = np.where(labels, labels.sum(axis=0, dtype=int), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), labels.shape[1])


def hold_out(
    labels: np.ndarray, groups: np.ndarray, names: Sequence[str], fraction: float, seed: int, option: str
) -> np.ndarray:
    """Which pictures are held out: about a share of each class, whole groups, and of no class all.

    Args:
        labels: of the pictures, see `strata`.
        groups: (n,) see `join`.
        names: by which they are drawn, such as their paths.
        fraction: share of the pictures.
        seed: of the choice.
        option: the error's name for `fraction`.

    Returns:
        (n,) bool.

    Raises:
        DatasetError: that leaves one part without pictures.
    """
    count, apart = round(len(labels) * fraction), len(np.unique(groups))
    held_out = np.zeros(len(labels), bool)
    if 0 < count < len(labels):
        held_out[draw_groups(strata(labels), groups, names, count, seed)] = True
        has = labels.astype(bool) if labels.ndim > 1 else labels[:, None] == np.unique(labels)
        for members in has.T:
            if members.any() and held_out[members].all():
                held_out[groups == groups[np.argmax(members)]] = False
    if not held_out.any():
        grouped = f" in {apart} groups" if apart < len(labels) else ""
        raise DatasetError(
            f"{option}={fraction} of {counted(len(labels), 'image')}{grouped} leaves nothing to hold out, or nothing "
            "to train on: each class keeps one to train on; take another share or more images"
        )
    return held_out


def draw_groups(classes: np.ndarray, groups: np.ndarray, names: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Draws about `count` pictures in whole groups: of each class its share, as near as groups allow.

    The groups that are mostly of one class stand in a line, by a hash of seed and name; along it one is drawn
    whenever at least half of it is owed, and what is left over is owed to the next class. So a picture that comes
    or goes moves hardly another: those of a test stay in it when the dataset grows.

    Args:
        classes: (n,) of the pictures.
        groups: (n,) see `join`.
        names: of the pictures; the first hash of a group is that of the group.
        count: of pictures.
        seed: of the hashes.

    Returns:
        The numbers of the drawn pictures, ascending.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    known, classes = np.unique(classes, return_inverse=True)
    both, counts = np.unique(groups * len(known) + classes, return_counts=True)
    both = both[np.argsort(counts, kind="stable")]
    most = np.empty(len(sizes), int)
    most[both // len(known)] = both % len(known)  # the last that is written is of the largest count
    places = np.full(len(sizes), 2**64 - 1, "uint64")
    np.minimum.at(places, groups, np.array([_hash(seed, name) for name in names], "uint64"))
    chosen, owed = np.zeros(len(sizes), bool), 0.0
    for one in range(len(known)):
        line = np.flatnonzero(most == one)
        owed += sizes[line].sum() * count / len(classes)
        for group in line[np.argsort(places[line], kind="stable")]:
            if 2 * owed >= sizes[group]:
                chosen[group] = True
                owed -= sizes[group]
    return np.flatnonzero(chosen[groups])


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogateescape"), digest_size=8).digest())
