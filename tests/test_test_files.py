"""The files of the tests themselves."""

from collections import Counter
from pathlib import Path


def test_no_two_bear_one_name():
    """Pytest imports them by their names, and stops at the second."""
    paths = Path(__file__).parent.rglob("*.py")
    names = Counter(path.name for path in paths if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
