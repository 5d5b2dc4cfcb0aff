"""Reach machines, prepare environments, run Autosubmit there, and tell the truth about it. Knows no HTTP."""
