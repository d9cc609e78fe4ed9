"""The books of rounds: which results belong to which, what is cached, out of date, or referred to by nobody."""
