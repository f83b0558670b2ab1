from ..datasets.test_datasets import index, magicbrush, pie  # noqa: F401
from ..encoders import clip, clip_folder, dino, dino_folder, lpips  # noqa: F401
