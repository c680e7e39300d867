"""A job that fails for want of what a sandbox does not give is told so, with the key of study.toml that gives it."""

import pytest


@pytest.mark.parametrize(
    "code, remedy",
    [
        ("open('log.txt', 'w')", "`writable`"),
        ("import urllib.request; urllib.request.urlopen('http://example.invalid/')", "no network"),
        ("open(OUTSIDE / 'secret.txt')", "`data`"),
        ("open('data/train.csv')", ".gitignore"),
    ],
)
def test_a_failure_that_the_sandbox_made_names_the_remedy(cell, code, remedy):
    outcome = cell.says(code)
    assert outcome.status == "failed"
    assert "in the sandbox" in outcome.message
    assert remedy in outcome.message


def test_another_failure_says_nothing_of_the_sandbox(cell):
    assert "sandbox" not in cell.says("raise ValueError('bad rate')").message
