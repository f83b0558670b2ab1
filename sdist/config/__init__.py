"""Settings from yaml and the command line: defaults < yaml < command line."""
