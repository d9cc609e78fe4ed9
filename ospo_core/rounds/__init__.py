"""Rounds: their stages and state, the lineage of models, and garbage collection."""

from ospo_core.rounds.round import Round

__all__ = ["Round"]
