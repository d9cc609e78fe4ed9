"""The command line, `ospo`. Importing it loads nothing heavy: every command imports what it needs when it runs."""

from ospo.app import app, main

__all__ = ["app", "main"]
