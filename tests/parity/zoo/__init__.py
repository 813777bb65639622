"""Stand-ins for published models: the same files, with small random weights."""
