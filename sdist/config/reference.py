"""The configuration reference, read off the classes: their docstrings, fields, defaults, and the comments beside the fields."""

import inspect
import re
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from ..models.catalogue import Scale
from ..registry import EDITORS, SLOTS
from .settings import FLAT, Settings

NAMES = ("loss", "filter", "normalizer", "gamma", "timesteps", "editor", "inversion", "solver", "region", "regularizer")
CONFIGURED = {name: SLOTS[name] for name in NAMES}
OTHERS = {  # slots that no method's yaml fills: heading, and what chooses from them
    "metric": ("Metrics", "`sdist evaluate` computes each that the data set and the encoders have the means for."),
    "family": ("Families of models", "Found by the class of the denoiser in a model's `model_index.json`."),
    "dataset": ("Data sets", "Named before a folder: `--dataset index:FOLDER`, `--input index:FOLDER`."),
}
PREFIXES = {
    "inversion": "editor.inversion.",
    "solver": "editor.solver.",
    "region": "editor.region.",
    "regularizer": "regularizers.{}.",
}
FIELD = re.compile(r"^    (\w+): (.+?)(?: = (.*?))?(?: +# (.*))?$", re.MULTILINE)  # name, type, default, comment


class Key(NamedTuple):
    """One thing that can be set."""

    name: str
    kind: str  # its type, as the source says it
    default: str
    about: str


def page() -> str:
    """The reference as Markdown."""
    flat = EDITORS.get(FLAT)
    parts = [HEAD, _table(keys(Settings)), f"\n## Score distillation\n\n{about(flat)}\n\n{_table(keys(flat))}", "\n## Groups\n"]
    parts += [f"\n### {name}\n\n{about(cls)}\n\n{_table(keys(cls), f'{name}.')}" for name, cls in _groups(flat).items()]
    for slot, registry in CONFIGURED.items():
        parts.append(f"\n## {slot.capitalize()}{'s' * (slot == 'regularizer')}\n")
        prefix = PREFIXES.get(slot, f"{slot}.")
        for name in registry.names():
            if name != FLAT:
                cls = registry.get(name)
                parts.append(f"\n### {name}\n\n{about(cls)}\n\n{_table(_all_keys(cls), prefix.format(name))}")
    for slot, (heading, chosen) in OTHERS.items():
        lines = [f"- `{name}`: {line}\n" for name, line in headlines(slot).items()]
        parts.append(f"\n## {heading}\n\n{chosen}\n\n{''.join(lines)}")
    return "".join(parts)


def headlines(slot: str) -> dict[str, str]:
    """The first line of each component's file by name, of its class where the file begins with none."""
    classes = {name: SLOTS[slot].get(name) for name in SLOTS[slot].names()}
    texts = {name: sys.modules[cls.__module__].__doc__ or cls.__doc__ or "" for name, cls in classes.items()}
    return {name: text.partition("\n")[0] for name, text in texts.items()}


def _groups(flat: Any) -> dict[str, Any]:
    """Keys that have keys of their own, by name: fields whose default is a dataclass."""
    groups = {f.name: f.default_factory for cls in (flat, Settings) for f in fields(cls) if is_dataclass(f.default_factory)}
    return {**groups, "scale": Scale}


def about(cls: type) -> str:
    """The first paragraph of the docstring."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def keys(cls: Any) -> list[Key]:
    """The fields of a dataclass, those of its bases too."""
    bases: list[Any] = [base for base in reversed(cls.__mro__) if is_dataclass(base)]
    source = "".join(map(inspect.getsource, bases))
    described = {match[1]: (match[2], match[4] or "") for match in FIELD.finditer(source)}
    hints = get_type_hints(cls)
    return [Key(f.name, _kind(hints[f.name], described[f.name][0]), _default(f), described[f.name][1]) for f in fields(cls)]


def _all_keys(cls: Any) -> list[Key]:
    """Its keys, and after them those of keys that have keys of their own."""
    groups = {f.name: f.default_factory for f in fields(cls) if is_dataclass(f.default_factory)}
    inner = [key._replace(name=f"{name}.{key.name}") for name, group in groups.items() for key in keys(group)]
    return [*(key for key in keys(cls) if key.name not in groups), *inner]


def _kind(hint: Any, source: str) -> str:
    return " | ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else source


def _default(field: Any) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "of the model"
    value = field.default if field.default is not MISSING else field.default_factory()
    return "see below" if is_dataclass(value) else repr(value)


HEAD = """# Configuration

Written by `sdist methods --markdown`; a test holds this page against the code. Every key can stand in a method's yaml and after
`--set` (`--set steps=100 loss.guidance_scale=5`). A component is chosen by its name, alone (`gamma: cosine`) or with values
(`gamma: {name: cosine, high: 0.2}`); regularizers are a mapping of names, and `null` switches one off.

## Settings

"""


def _table(rows: list[Key], prefix: str = "") -> str:
    if not rows:
        return "It has no settings.\n"
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for row in rows:
        cells = (f"`{prefix}{row.name}`", f"`{row.kind}`", f"`{row.default}`", row.about)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
