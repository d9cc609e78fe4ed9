"""The text of the method: instructions, answer formats, filters and the stages that write text. No torch."""
