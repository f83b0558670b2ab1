"""Tinyworld: a small drawn world with captions and exact masks, and in weights/ a diffusion model trained on it."""
