"""The networks that metrics read: CLIP, DINO and LPIPS, with weights from safetensors alone."""
