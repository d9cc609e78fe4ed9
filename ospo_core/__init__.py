"""OSPO: a text-to-image model that improves itself with preference data it makes and judges itself."""
