"""The command line: one module per sub-command parses options, calls an engine, prints results."""
