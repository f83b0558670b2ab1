"""What a model may be loaded with beside its own files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadOptions:
    """As the settings of the same names say it; empty where nothing is said."""

    variant: str = ""  # of weights in a folder, such as fp16
    config: str = ""  # of a single file: alias, hub id or folder whose configurations it has
