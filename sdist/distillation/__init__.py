"""Score distillation: the method, which draws a round tries, and the module whose parameter is the latents."""
