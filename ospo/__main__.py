"""`python -m ospo` is `ospo`."""

from ospo import main

main()
