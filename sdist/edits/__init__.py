"""One edit as data: what is asked for, what came out, its run card and its files."""
