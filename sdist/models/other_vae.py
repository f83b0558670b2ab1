"""An autoencoder in place of a model's own: one file, a folder, or a hub id."""

from pathlib import Path
from typing import Any

from ..errors import UserError
from .added_files import find_file
from .single_file import AbsentError, converted_network
from .weights import MissingError, find_weights

CONFIG = "config.json"


def vae_folder(place: str) -> Path | None:
    """The folder with an autoencoder and its config.json that a path means, if it does."""
    return next((folder for folder in (Path(place), Path(place) / "vae") if (folder / CONFIG).is_file()), None)


def load_vae(place: str, kind: Any, configs: Path) -> Any:
    """The autoencoder of a folder with its config.json, or of a file that has the configuration of the model's own.

    `configs` is the model's folder. Raises UserError for what is none.
    """
    folder = vae_folder(place)
    file = find_file(place, "vae") if folder is None else None
    if file is not None and (file.parent / CONFIG).is_file():
        folder = file.parent
    try:
        if folder is None and file is not None:
            return converted_network("vae", kind, configs, file)[0]
        assert folder is not None
        variant = find_weights(folder).variant
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, variant=variant).float().eval()
    except UserError as error:
        raise UserError(f"vae {place}: {error}") from None
    except (MissingError, AbsentError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"vae {place} is no {kind.__name__}: {' '.join(str(error).split())[:200]}") from error
