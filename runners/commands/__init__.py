"""The Autosubmit commands: one module for each, with its parameters, texts, and how to read its output. No rows."""
