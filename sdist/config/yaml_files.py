"""Yaml files of others: what could hang or crash the parser, or read the environment, is refused before it is loaded."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError

MAX_BYTES, MAX_DEPTH = 1_000_000, 50
RESOLVER = re.compile(r"\$\{[^}]*:")  # ${oc.env:HOME}, which would put the environment into run cards; ${scale.step} is fine


def read_yaml(path: Path, prepare: Callable[[str], str] = str) -> Any:
    """A DictConfig or ListConfig. Raises UserError for what is no yaml, too large, too deep, or calls a resolver of OmegaConf.

    `prepare` changes the text before it is loaded. Aliases that expand beyond OmegaConf's limit are refused there.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        text = path.read_text(encoding="utf-8")
        check_yaml(text)
        return OmegaConf.load(StringIO(prepare(text)))
    except UserError as error:
        raise UserError(f"{path.name} cannot be read: {error}") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:  # OSError: of a bare value
        raise UserError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None


def check_yaml(text: str) -> None:
    """Raises UserError if the text nests deeper than the parser can stand, or if a value calls a resolver."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.ScalarEvent):
            check_values(event.value)


def check_values(text: str) -> None:
    """Raises UserError if OmegaConf would call one of its resolvers for what stands in the text."""
    call = RESOLVER.search(text)
    if call:
        raise UserError(f"{call[0]!r}... calls a resolver; only references such as ${{scale.step}} are allowed")
