"""Traces: recorded runs of one image that another implementation can be held against. Format: tests/golden/README.md."""
