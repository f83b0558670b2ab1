"""Losses: one file a method; the file's name is the registry key."""
