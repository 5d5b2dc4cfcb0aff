"""Reach a machine over SSH: configuration, host keys, authentication, connections and their pool."""
