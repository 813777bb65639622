"""Processes, cores and devices: what every engine runs on."""
