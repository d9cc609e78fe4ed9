"""The text of the method: instructions, answer formats, filters, and the functions that generate text. No torch."""
