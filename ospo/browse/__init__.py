"""The local web page of `ospo browse`: what a storage holds, and blind sessions for people as judges."""
