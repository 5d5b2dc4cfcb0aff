"""Login of the command line, and the owner of a token."""
