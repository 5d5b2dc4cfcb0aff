"""Reach a machine, prepare an environment, execute scripts there, and parse the answers. No rows and no use cases."""
