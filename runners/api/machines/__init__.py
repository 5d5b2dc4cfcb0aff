"""Machines and their maintenance."""
