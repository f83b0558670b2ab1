"""Reading activations: `record` is the only place that registers hooks, the others say what to read."""
