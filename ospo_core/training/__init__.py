"""Training: pure losses, data in a seeded order, the loop, checkpoints, and the process that runs them.

Import from the modules themselves: the package imports nothing, so importing it does not import torch.
"""
