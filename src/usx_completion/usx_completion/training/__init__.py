"""Training of networks: one trainer for every model, on one process or several."""
