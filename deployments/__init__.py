"""What runs where, when, and with which parameters: profiles, experiments and Prefect deployments."""
