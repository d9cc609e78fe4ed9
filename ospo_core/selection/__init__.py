"""Scores of images, and the filter and pair rules; free of torch (docs/method.md, section 3)."""
