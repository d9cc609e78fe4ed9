"""Scripts that measure and that break: each is run by hand and writes what it saw."""
