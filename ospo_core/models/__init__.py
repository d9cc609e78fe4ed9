"""The unified model: loading, sampling, log-probabilities, answers, attention masks, adapters and export.

Everything here works on transformers' `JanusForConditionalGeneration`, tiny or large; what differs per family is data.
Import from the modules themselves: this package imports nothing, so that naming it does not import torch.
"""
