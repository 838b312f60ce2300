"""Steps to a run."""
