"""Components in memory: which family they are, and whether each is of a class that is known to do what the family's own does."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from .base import Backbone
from .folders import denoisers, families_of, matching, read_folder
from .weights import MissingError
from .wrappers import unwrapped


def family_of(parts: Mapping[str, Any]) -> type[Backbone]:
    """The family of components by their names in diffusers. Raises UserError where one is missing, or as `check_part` does."""
    there = {name: unwrapped(part) for name, part in parts.items() if part is not None}
    try:
        families = families_of({name: _classes(part) for name, part in there.items()})
    except UserError as error:
        name = next((family.denoiser_name for family in denoisers() if family.denoiser_name in there), "")
        known = [kind for family, kind in denoisers().items() if family.denoiser_name == name]
        raise UserError(f"{error}{_remedy(name, there.get(name), known)}") from None
    family = matching(families, there[families[0].denoiser_name].config)
    if missing := [name for name in family.components if name not in there and name not in family.optional]:
        kind = family.components[family.denoiser_name]
        raise UserError(f"this {kind} needs {', '.join(missing)} beside it, which the pipeline does not have")
    for name in (name for name in family.components if name in there):
        check_part(family, name, there[name])
    return family


def check_part(family: type[Backbone], name: str, part: Any) -> None:
    """Raises UserError for a component of a class that is not known here, and says how to have one of a class that is."""
    try:
        family.check_kind(name, _classes(part))
    except UserError as error:
        raise UserError(f"{error}{_remedy(name, part, family.known_kinds(name))}") from None


def checked_variant(folder: str, given: Mapping[str, Any]) -> str | None:
    """The variant in the names of a pipeline's weights, where it has no others.

    `given` are components that come from elsewhere, and other options. Raises UserError if a part is missing, unsafe or of a
    class that is not known here.
    """
    try:
        contents = read_folder(Path(folder), {}, given)
    except (MissingError, UserError) as error:
        raise UserError(f"{folder}: {error}") from None
    for name in (name for name in contents.family.components if given.get(name) is not None):
        check_part(contents.family, name, given[name])
    variants = {part.variant for part in contents.parts.values()} - {None}
    if len(variants) > 1:
        raise UserError(
            f"{folder}: parts have weights of the variants {', '.join(sorted(map(str, variants)))} alone: say variant="
        )
    return next(iter(variants), None)


def _classes(part: Any) -> list[str]:
    """The names of its class and of those that it derives from; of a network without a configuration, which is of neither
    diffusers nor transformers, where its class is from."""
    kind = type(part)
    if isinstance(part, nn.Module) and not hasattr(part, "config"):
        return [f"{kind.__name__} of {kind.__module__}"]
    return [base.__name__ for base in kind.__mro__]


def _remedy(name: str, part: Any, known: Collection[str]) -> str:
    """What to give instead of a component of another class than those known: the one that it holds, or one from a file."""
    if not name or name == "scheduler":
        return ""
    for place, inner in part.named_modules() if isinstance(part, nn.Module) else ():
        if set(_classes(inner)) & set(known):
            return f"; give the one in it, {name}.get_submodule({place!r})"
    kind = next(iter(known)) if len(set(known)) == 1 else "CLASS"
    return f"; give {kind}.from_pretrained(MODEL, subfolder={name!r})"
