"""Support of the tests: servers and tiny models made on the spot."""
