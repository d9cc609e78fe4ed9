"""Held-out evaluation: prompts, judges, statistics and the promotion gate; import its modules, not the package."""
