"""The transport's specification says what the code does, and every condition has its test."""

import pytest
from tests.architecture.htp_page import CONDITIONS, PAGE, TABLES, named_tests, page, shown


def test_the_page_shows_every_table_as_the_code_has_it() -> None:
    assert sorted(shown()) == sorted(TABLES)
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.architecture.documents"


def test_the_conditions_are_those_of_the_design_and_one_that_a_soak_found() -> None:
    assert list(CONDITIONS) == list(range(1, 48 + 1))


@pytest.mark.parametrize("number", CONDITIONS)
def test_every_condition_has_a_test_of_its_number(number: int) -> None:
    assert named_tests()[number]
