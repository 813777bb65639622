"""Run the documentation."""
