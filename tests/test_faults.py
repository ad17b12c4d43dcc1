"""The deliberate faults of `faults.py` fit the code: a text that is gone would break nothing and prove nothing."""

import pytest
from faults import FAULTS, ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.promise)
def test_a_fault_has_its_place_and_its_tests(fault):
    assert (ROOT / "kzoo" / fault.file).read_text(encoding="utf-8").count(fault.old) == 1
    assert [test for test in fault.tests if not (ROOT / "tests" / test.split("::")[0]).exists()] == []
