"""Networks of diffusers pipelines: loading, families, text, precision, memory."""
