"""The embedded world: coloured shapes on a grid, exactly checkable, and the tiny Janus that is trained on it."""
