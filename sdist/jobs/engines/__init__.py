"""Execution backends of `sdist run`: this process, several on this machine, or the actors of a Ray cluster."""
