"""Processes, cores, memory, devices and signals."""
