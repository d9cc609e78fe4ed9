"""What runs where, when, and with which parameters: the command line, profiles and Prefect deployments."""
