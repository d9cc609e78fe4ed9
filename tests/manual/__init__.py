"""Tests that take minutes to hours and are run by hand, e.g. `python -m tests.manual.chaos`."""
