"""The HTTP API: one folder for each resource; the modules beside them serve all resources."""
