"""What a model may be loaded with beside its own files."""

from collections.abc import Iterator
from dataclasses import dataclass

from .residence import Offload, Storage


@dataclass(frozen=True)
class LoadOptions:
    """As the settings of the same names say it; empty where nothing is said."""

    variant: str = ""  # of weights in a folder, such as fp16
    config: str = ""  # of a single file: alias, hub id or folder whose configurations it has
    vae: str = ""  # a file, folder or hub id
    loras: tuple[str, ...] = ()  # FILE[:WEIGHT]
    embeddings: tuple[str, ...] = ()  # FILE[:WORD]
    offload: Offload = "none"
    storage: Storage = "same"

    @property
    def added(self) -> Iterator[tuple[str, str]]:
        """Everything that is put on the model: what it is, and where."""
        yield from (("vae", self.vae),) if self.vae else ()
        yield from (("lora", lora) for lora in self.loras)
        yield from (("embedding", embedding) for embedding in self.embeddings)
