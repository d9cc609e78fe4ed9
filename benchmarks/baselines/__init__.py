"""The published way of doing what a round does, in our own words, to measure against.

Plain and honest: transformers' networks, none of the round's code that computes, and no slowness that the published
loops do not have. Given the same choices (greedy, or without dropout) they give the round's own results.
"""
