"""Stand-ins for published models: their files as they are, the weights small and random."""
