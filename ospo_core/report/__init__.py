"""What a round leaves for people: one self-contained HTML file, and a table for the terminal.

The room is imported in parts, because the HTML needs matplotlib and jinja2 and the table only rich:
`ospo_core.report.html.write_report` and `ospo_core.report.summary.round_summary`.
"""
