"""Rounds: what a round consists of, which of its stages are done, where its models come from, what nobody needs."""

from ospo_core.rounds.round import Round

__all__ = ["Round"]
