"""Scripts that measure the pipeline and that break it; run each by hand, with `python -m`: it writes what it saw."""
