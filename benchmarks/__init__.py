"""Measurements of the pipeline itself: how it scales and what Prefect costs. Run by hand, with `python -m`."""
