"""Queries over a storage for people who look at it; everything is read by column and by shard.

What is read is checked or shown as text (docs/architecture.md, decision 11).
"""
