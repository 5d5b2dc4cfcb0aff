"""Configuration files of experiments."""
