"""The command line, `ospo`. Importing it loads nothing heavy: every command imports what it needs when it runs."""

from ospo.interrupt import quick_end


def main() -> None:
    """Run the command that the arguments of this process name, and exit."""
    with quick_end():
        from ospo.app import run

        run()
