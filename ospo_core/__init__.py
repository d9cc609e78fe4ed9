"""OSPO: a text-to-image model that improves itself with preference data it makes and judges itself."""

import os

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
"""Ask Intel's MKL for the same result in every run. By default it picks kernels by the alignment of its buffers: about
one process in ten gave log-probabilities that differ in the sixth digit, and a resumed run another digest. The variable
is read at the first matrix product, so importing this package first is soon enough; a value set before stays."""
