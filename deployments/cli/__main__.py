"""`python -m deployments.cli` is `ospo`."""

from deployments.cli.app import main

main()
