"""Sampling between noise and image: schedules, solvers, inversions, and how two prompts' tokens belong together."""
