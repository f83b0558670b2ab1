"""sdist methods: the yamls of experiments/ and every registered component with its defaults."""

import argparse
import json
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from .arguments import Commands, json_argument, plugin_argument
from .messages import print_entry


def add_to(commands: Commands) -> None:
    command = commands.add_parser("methods", help="list methods and components with their defaults")
    command.add_argument("--markdown", action="store_true", help="print the configuration reference instead")
    plugin_argument(command)
    json_argument(command)


def main(args: argparse.Namespace) -> int:
    from ..config.methods import shipped
    from ..config.reference import CONFIGURED, OTHERS, about, headlines, page

    if args.markdown:
        print(page(), end="")
        return 0

    methods = {name: _headline(path) for name, path in shipped("method").items()}
    components: dict[str, dict[str, dict[str, Any]]] = {
        slot: {n: {"about": about(r.get(n)), "defaults": _defaults(r.get(n))} for n in r.names()}
        for slot, r in CONFIGURED.items()
    }
    for slot in OTHERS:
        components[slot] = {name: {"about": line, "defaults": {}} for name, line in headlines(slot).items()}
    if args.json:
        print(json.dumps({"methods": methods, "components": components}, indent=1))
        return 0
    print("methods (--method)")
    for name, line in methods.items():
        print_entry(name, line)
    for slot, described in components.items():
        print(f"\n{slot}")
        for name, entry in described.items():
            print_entry(name, entry["about"])
            for key, value in entry["defaults"].items():
                print_entry("", f"  {key} = {value}")
    return 0


def _headline(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def _defaults(cls: Any) -> dict[str, Any]:
    return {f.name: _default(f) for f in fields(cls)}


def _default(field: Any) -> Any:
    value: Any = field.default if field.default is not MISSING else field.default_factory()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
