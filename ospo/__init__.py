"""The command line, `ospo`. Importing it loads nothing heavy: every command imports what it needs when it runs."""


def main() -> None:
    """Run the command that the arguments of this process name, and exit.

    Signals wait from the start until there is somebody who knows how to end the process.
    """
    try:
        import signal

        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    from ospo.interrupt import quick_end

    with quick_end(before):
        from ospo.app import run

        run()
