"""The command-line client `asr`. It needs only Python (3.8 or newer): see docs/cli.md."""

__version__ = "0.9.0.dev0"  # that of runners_project; the client must not import the service
