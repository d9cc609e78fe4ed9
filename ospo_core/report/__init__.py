"""What people see of a round: an HTML report, Markdown pages, and a table for the terminal.

Import its modules, not the package: `html` and `plots` need matplotlib and jinja2, `stages` only rich.
"""
