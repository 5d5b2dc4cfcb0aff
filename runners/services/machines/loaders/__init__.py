"""The module loaders: one module for each way to prepare the environment of a command."""
