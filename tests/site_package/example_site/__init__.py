"""A loader, a runner and a command of a site, one module each."""
