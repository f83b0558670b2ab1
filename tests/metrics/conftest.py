from ..encoders import clip, clip_folder, dino, dino_folder, lpips  # noqa: F401
