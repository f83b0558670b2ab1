"""While tests run, every annotation of the package is checked, shapes too."""

from pathlib import Path

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from jaxtyping import install_import_hook
from upath import UPath

# An int may stand for a float, as PEP 484 says, and a UPath for a Path, as files/storage.py says.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=BeartypeHintOverrides({Path: Path | UPath})))
install_import_hook("sdist", "tests.checked")
