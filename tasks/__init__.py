"""Prefect tasks: thin wrappers that add caching, retries and artifacts to what `ospo_core.stages` does."""
