"""Fitting: a page stays within its bytes, and says what it lost."""

import pytest

from editsafety.publishing.fitting import Section, fit

TABLE = "\n".join(["| a | b |", "| --- | --- |", *(f"| {i} | {'é' * 20} |" for i in range(200))])


def fitted(*sections, most=5000):
    return fit(sections, most, called="a comment", where="report.md")


def test_a_page_that_fits_is_whole_and_says_nothing_more():
    assert fitted(Section("a", "one"), Section("b", "two\nthree", "More"), Section("c", "")) == (
        "one\n\n<details><summary>More</summary>\n\ntwo\nthree\n\n</details>\n"
    )


def test_a_table_loses_rows_from_its_end_and_the_sentence_says_how_many():
    page = fitted(Section("the verdict", "PASS"), Section("the table", TABLE, "Table"))
    assert len(page.encode()) <= 5000
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[:2] == ["| a | b |", "| --- | --- |"]
    assert 20 < len(rows) < 200
    assert page.endswith(
        f"</details>\n\n*Left out, because a comment holds no more: {202 - len(rows)} lines of the table. "
        "All of it is in report.md.*\n"
    )


def test_a_part_of_which_nothing_would_be_left_is_named_and_later_ones_may_still_fit():
    page = fitted(Section("the table", "| a |\n| --- |\n| " + "x" * 9000 + " |"), Section("the end", "short"))
    assert page.startswith("short\n")
    assert "no more: the table. All" in page


def test_many_parts_that_are_missing_are_counted():
    page = fitted(*(Section(f"part {i}", "x" * 6000) for i in range(30)))
    assert "part 11, 18 other parts. All" in page


@pytest.mark.parametrize("most", [600, 1000, 2500, 70_000])
def test_no_page_is_longer_than_it_may_be(most):
    sections = [Section("the verdict", "PASS"), Section("the table", TABLE, "T"), *[Section("x", "漢" * 500)] * 9]
    assert len(fitted(*sections, most=most).encode()) <= most
