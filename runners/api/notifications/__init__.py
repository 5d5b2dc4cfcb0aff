"""Mail about runs."""
