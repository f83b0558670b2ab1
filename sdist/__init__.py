"""Text-guided image editing by score distillation: a modular framework around LUSD (arXiv 2503.11054)."""

__version__ = "0.1.0"
