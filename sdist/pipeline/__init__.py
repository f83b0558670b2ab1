"""Score distillation as a pipeline of diffusers."""
