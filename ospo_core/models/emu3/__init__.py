"""Emu3: one vocabulary for text and image tokens, and rows of an image that end in a token of their own."""
