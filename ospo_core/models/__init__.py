"""The unified model: one protocol for every model family, and the algorithms that are written once on top of it.

`base` has the protocol; `janus` is a family that implements it. Import from the modules themselves: this package
imports nothing, so that naming it does not import torch.
"""
