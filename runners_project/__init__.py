"""The Django project of Autosubmit Runners."""

__version__ = "0.9.0.dev0"  # semantic versioning; the only place of the version
