"""The command line: a module per sub-command that parses, calls one engine function and renders."""
