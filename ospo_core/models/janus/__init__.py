"""Janus (arXiv 2410.13848) and Janus-Pro (arXiv 2501.17811), in transformers' format, tiny or large."""
