"""Dividing: shares of classes within a group of what they should be, groups whole, the same for one seed."""

import numpy as np
import pytest

from kzoo.data.datasets import load_dataset
from kzoo.data.division import Division, draw_groups, hold_out, join, strata
from kzoo.errors import DatasetError, InvalidValueError

NAMES = [f"folder/{number:04d}.png" for number in range(2000)]
OPTIONS = dict(test_fraction=0.2, validation_fraction=0.1, seed=0)


def joined_by_walking(keys: list[tuple]) -> list[set[int]]:
    """Groups of what shares a key, found by walking from each to its neighbours."""
    left, groups = set(range(len(keys))), []
    while left:
        group, border = set(), {left.pop()}
        while border:
            group |= border
            border = {
                other
                for other in range(len(keys))
                for one in border
                if any(map(lambda a, b: a == b, keys[one], keys[other]))
            } - group
        left -= group
        groups.append(group)
    return groups


def test_what_shares_a_key_directly_or_by_way_of_others_is_of_one_group():
    assert join([3, 3, 1], [0, 1, 1]).tolist() == [0, 0, 0]
    rng = np.random.default_rng(0)
    for count in range(1, 60):
        first, second = rng.integers(0, count, (2, count))
        groups = join(first, [f"key {number}" for number in second])
        found = [set(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups)]
        assert sorted(map(sorted, found)) == sorted(
            map(sorted, joined_by_walking(list(zip(first, second, strict=True))))
        )


@pytest.mark.parametrize("largest", [1, 2, 7])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_groups_stay_whole_and_classes_get_their_share(largest, fraction):
    """To within half a group in each class, where the pictures of a group are of one class."""
    totals = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, largest + 1, 120)
        groups = np.repeat(rng.permutation(120), sizes)
        classes = np.repeat(rng.choice(4, 120, p=[0.6, 0.2, 0.15, 0.05]), sizes)
        order = rng.permutation(len(groups))
        groups, classes = groups[order], classes[order]
        count = round(len(groups) * fraction)
        names = [f"{number}.png" for number in rng.permutation(len(groups))]
        chosen = draw_groups(classes, groups, names, count, seed)
        assert (np.diff(chosen) > 0).all()
        taken = np.isin(np.arange(len(groups)), chosen)
        assert not set(groups[taken]) & set(groups[~taken])
        assert abs(len(chosen) - count) <= largest / 2 + 1
        shares = np.bincount(classes[taken], minlength=4) - fraction * np.bincount(classes, minlength=4)
        assert np.abs(shares).max() <= largest + 1
        np.testing.assert_array_equal(chosen, draw_groups(classes, groups, names, count, seed))
        totals.append(chosen.tobytes())
    assert len(set(totals)) == 15


def test_groups_of_several_classes_are_drawn_whole():
    rng = np.random.default_rng(1)
    groups, classes = rng.integers(0, 50, 2000), rng.integers(0, 3, 2000)
    held_out = hold_out(classes, groups, NAMES[:2000], 0.2, 4, "test_fraction")
    assert not set(groups[held_out]) & set(groups[~held_out])
    shares = np.bincount(classes[held_out], minlength=3) / np.bincount(classes)
    np.testing.assert_allclose(shares, 0.2, atol=0.05)


@pytest.mark.parametrize("size", [1, 4])
def test_a_picture_that_comes_or_goes_moves_hardly_another(size):
    """At most one group of each class, and far fewer in the mean; a draw anew would move a third of them."""
    moved = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(30, 90))
        names = [NAMES[number] for number in rng.permutation(2000)[: count + size]]
        classes, groups = np.sort(rng.integers(0, 3, count + size) // size), np.arange(count + size) // size
        whole = hold_out(classes, groups, names, 0.2, seed, "test_fraction")
        left = np.delete(np.arange(count + size), np.flatnonzero(groups == groups[rng.integers(count)]))
        without = hold_out(classes[left], groups[left], [names[index] for index in left], 0.2, seed, "test_fraction")
        moved.append(int((whole[left] != without).sum()))
    assert max(moved) <= 2 * 3 * size
    assert np.mean(moved) < 1.5 * size


def test_each_class_keeps_a_group_to_train_on():
    classes, groups = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2, 2, 2])
    for seed in range(10):
        held_out = hold_out(classes, groups, NAMES[:8], 0.6, seed, "test_fraction")
        assert set(classes[~held_out]) == {0, 1}
    with pytest.raises(
        DatasetError, match=r"test_fraction=0\.1 of 8 images in 3 groups leaves nothing to hold out, or nothing to tra"
    ):
        hold_out(classes, groups, NAMES[:8], 0.1, 0, "test_fraction")


def test_a_key_is_the_first_group_of_the_pattern_or_all_that_it_matches():
    paths = ["cat/p7_left.png", "dog/p12_left.png"]
    assert Division(group_by=r"(p\d+)_(\w+)", **OPTIONS).keys(paths) == ["p7", "p12"]
    assert Division(group_by=r"p\d+_", **OPTIONS).keys(paths) == ["p7_", "p12_"]
    assert Division(group_by="^[^/]+", **OPTIONS).keys(paths) == ["cat", "dog"]
    assert Division(group_by=None, **OPTIONS).keys(paths) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"group_by='\(' is no regular expression: missing \), unterminated subpattern"),
        ("a{99999999999999999999}", "is no regular expression: the repetition number is too large"),
        ("nothing", "group_by='nothing' finds no key in 2 of 2 paths, such as cat/p7.png; it must match each path"),
        ("p7", "group_by='p7' finds no key in 1 of 2 paths, such as dog/q12.png"),
        (r"(p\d+)|q", r"finds no key in 1 of 2 paths, such as dog/q12.png"),
    ],
)
def test_a_pattern_that_gives_no_keys_is_one_line(pattern, message):
    with pytest.raises((DatasetError, InvalidValueError), match=message) as error:
        Division(group_by=pattern, **OPTIONS).keys(["cat/p7.png", "dog/q12.png"])
    assert "\n" not in str(error.value)


def pictures(tmp_path, *names):
    from images.pictures import picture, saved

    for name in names:
        saved(tmp_path / name, picture(tmp_path / name))
    return str(tmp_path)


def test_pictures_of_one_key_are_in_one_split(tmp_path):
    names = [f"{'ab'[number % 2]}/p{number // 6}_{number}.png" for number in range(120)]
    root = pictures(tmp_path, *names)
    tests = set()
    for seed in range(3):
        data = load_dataset(root, image_size=8, group_by=r"p(\d+)_", validation_fraction=0.25, seed=seed)
        keys = [
            {path.split("_")[0][2:] for path, _ in split.files} for split in (data.train, data.validation, data.test)
        ]
        assert list(map(len, keys)) == [12, 4, 4]
        assert len(set.union(*keys)) == 20
        tests.add(frozenset(keys[2]))
    assert len(tests) == 1


def test_splits_that_a_dataset_has_must_not_divide_a_key(tmp_path):
    root = pictures(
        tmp_path,
        *(f"{part}/{name}/{part[-1]}{n}.png" for part in ("train", "test") for name in "ab" for n in range(10)),
    )
    load_dataset(root, image_size=8, group_by=r"\w\d+\.png")
    with pytest.raises(
        DatasetError,
        match=r"group_by='\\\\d\+': the key '0' is in two splits of the dataset, in train/a/n0.png and in test",
    ):
        load_dataset(root, image_size=8, group_by=r"\d+")


def test_several_labels_are_drawn_by_the_rarest_and_no_label_is_held_out_whole():
    rng = np.random.default_rng(3)
    labels = (rng.random((1000, 4)) < [0.6, 0.3, 0.1, 0.02]).astype("uint8")
    labels[:, 3] |= labels[:, 0] & (rng.random(1000) < 0.01)
    counts = labels.sum(axis=0)
    for row, found in zip(labels, strata(labels), strict=True):
        mine = np.flatnonzero(row)
        assert found == (min(mine, key=lambda index: counts[index]) if len(mine) else 4)
    held_out = hold_out(labels, np.arange(1000), NAMES[:1000], 0.2, 0, "test_fraction")
    np.testing.assert_allclose(labels[held_out].sum(axis=0) / counts, 0.2, atol=0.06)
    assert labels[~held_out].any(axis=0).all()


def test_a_label_that_is_never_the_rarest_of_its_pictures_is_kept_too():
    labels = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    for seed in range(20):
        held_out = hold_out(labels, np.arange(6), NAMES[:6], 0.5, seed, "test_fraction")
        assert labels[~held_out].any(axis=0).all()
    absent = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
    for seed in range(20):
        assert hold_out(absent, np.arange(4), NAMES[:4], 0.5, seed, "test_fraction").sum() == 2
