"""`python -m ospo` is `ospo`."""

from ospo.app import main

main()
