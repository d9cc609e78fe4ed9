"""Training: pure losses, data in a seeded order, the loop, checkpoints, and the process that runs them.

Import from the modules themselves: this package imports nothing, so that naming it does not import torch.
"""
