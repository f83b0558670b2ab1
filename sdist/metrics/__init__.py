"""Metrics of edited images, as the benchmarks MagicBrush (in LUSD's form) and PIE-Bench define them; one file per metric."""
