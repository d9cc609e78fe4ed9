"""Scripts that measure the pipeline and that break it. Each is run by hand, with `python -m`, and writes what it saw."""
