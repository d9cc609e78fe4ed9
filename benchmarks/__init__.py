"""Scripts that measure the pipeline; run each by hand with `python -m`. They import nothing from the tests."""
