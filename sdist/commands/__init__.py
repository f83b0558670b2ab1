"""The commands of the command line: one module each, `main(args)` returns the exit code."""
