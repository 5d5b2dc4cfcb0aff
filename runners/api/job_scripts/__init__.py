"""The generated scripts of jobs."""
