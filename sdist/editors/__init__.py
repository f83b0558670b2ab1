"""Diffusers' own editing pipelines, run as any method is: what score distillation is compared with."""
