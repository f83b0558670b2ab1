"""sdist doctor: what is installed, which devices and models are there, which tagger finds nouns."""

import argparse
import json
import platform
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..extras import installed_version
from .arguments import Commands, json_argument
from .messages import print_entry, wrapped
from .needs import MemoryQuery, lines, needs

ONLINE = 10  # seconds that the hub is waited for, with all models together

PACKAGES = (
    "torch", "diffusers", "transformers", "pytorch-lightning", "omegaconf", "nltk", "textblob", "einops", "wandb",
    "tensorboard", "safetensors", "pillow", "gradio", "openvino",
)  # fmt: skip


def add_to(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="show what is installed and what an edit would need")
    command.add_argument("--clear", action="store_true", help="remove the networks that were converted for --compile openvino")
    command.add_argument("--online", action="store_true", help="ask the hub for models that are not on this disk")
    command.add_argument(
        "--model", metavar="ALIAS|ID|DIR|FILE", help="say instead what memory an edit with it needs (default: no model)"
    )
    command.add_argument(
        "--model-config",
        metavar="ALIAS|ID|DIR",
        help="whose configurations a file has (default: what its weights look like)",
    )
    command.add_argument("--size", help="of that edit (default: native)")
    command.add_argument("--method", metavar="NAME|YAML", help="of that edit (default: the model's)")
    command.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    json_argument(command)


def main(args: argparse.Namespace) -> int:
    _check_together(args)
    if args.model is not None:
        return _report_memory(args)
    from ..image_guidance.catalogue import ADAPTERS, missing
    from ..models import network_cache
    from ..models.catalogue import MODELS
    from ..registry import installed

    if args.clear:
        network_cache.clear()
    problems = _ask_hub([source for model in MODELS.values() for source in model.sources]) if args.online else None
    report = {
        "python": platform.python_version(),
        "packages": {name: installed_version(name) or "not installed" for name in PACKAGES},
        "devices": _devices(),
        "tagger": _tagger(),
        "models": {name: _where(model.sources, problems) for name, model in MODELS.items()},
        "image guidance": {name: _lacks(missing(source)) for name, source in ADAPTERS.items()},
        "converted networks": {str(network_cache.folder()): _kept(network_cache.sizes(), network_cache.LARGEST)},
        "components": installed(),
    }
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report)
    return 0


def _report_memory(args: argparse.Namespace) -> int:
    """What an edit with the model needs."""
    from ..models.catalogue import default_method

    method = args.method or default_method(args.model)
    report = needs(MemoryQuery(args.model, args.model_config or "", args.size or "native", method, args.device or "auto"))
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    print("{model} at {size}, {method}".format(**report))
    for name, text in lines(report):
        print_entry(name, text, 20)
    return 0


def _check_together(args: argparse.Namespace) -> None:
    """Raises UserError for an option that would not be read."""
    names = ("clear", "online") if args.model is not None else ("model_config", "size", "method", "device")
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]:
        said = (
            "does not go with --model: leave one of them out"
            if args.model is not None
            else "is of an edit: say --model too, or leave it out"
        )
        raise UserError(f"{given[0]} {said}")


def _devices() -> dict[str, str]:
    import os

    import torch

    devices = {"cpu": f"{torch.get_num_threads()} threads of {os.cpu_count()} processors, {_memory()}"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def _memory() -> str:
    import os

    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"


def _tagger() -> str:
    from ..taggers import DOWNLOAD, default_tagger, nltk_damage

    name = default_tagger()[0]
    if name == "nltk":
        return "nltk (its data is installed; as in the paper)"
    state = "cannot be used" if nltk_damage() else "is absent"
    return f"textblob (nltk's data {state}: {DOWNLOAD})"


def _ask_hub(sources: list[str]) -> dict[str, str | None]:
    """What keeps each source from being downloaded, None if nothing does; all are asked at once, for so many seconds in all."""
    from ..models.catalogue import hub_problem

    problems: dict[str, str | None] = dict.fromkeys(sources, f"the hub has not answered within {ONLINE} s")

    def ask(source: str) -> None:
        problems[source] = hub_problem(source)

    threads = [threading.Thread(target=ask, args=(source,), daemon=True) for source in sources]
    end = time.monotonic() + ONLINE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(problems)


def _where(sources: tuple[str, ...], problems: Mapping[str, str | None] | None) -> str:
    """The first source that is on this disk, or of those without a problem on the hub, or what an edit would have to download."""
    from ..models.folders import local_folder, problem

    faults = {source: problem(source) for source in sources}
    whole = [source for source, fault in faults.items() if fault is None]
    if whole:
        return f"ready: {whole[0]}"
    partial = [f"{source} is on this disk in part: {fault}" for source, fault in faults.items() if local_folder(source)]
    if problems is None:
        state = "; ".join(partial) or "not on this disk"
        return f"{state}; an edit downloads {sources[0]} (--online asks whether it is there)"
    reachable = [f"on the hub: {source}" for source in sources if problems[source] is None][:1]
    return "; ".join([*partial, *(reachable or [f"{source}: {problems[source]}" for source in sources])])


def _kept(sizes: list[int], largest: int) -> str:
    held = f"{len(sizes)}, {sum(sizes) / 1e6:.0f} MB (sdist doctor --clear removes them)" if sizes else "none"
    return f"{held}; up to {largest / 1e9:.0f} GB are kept"


def _lacks(files: list[str]) -> str:
    return f"not on this disk: {', '.join(files)}" if files else "ready"


def _print(report: dict[str, Any]) -> None:
    print(f"python {report['python']}")
    for name, installed in report["packages"].items():
        print_entry(name, installed, 20)
    for title in ("devices", "models", "image guidance", "converted networks"):
        print(title)
        for name, text in report[title].items():
            print_entry(name, text, 20)
    for line in report["components"]:
        print(line)
    print(wrapped(f"nouns are found by {report['tagger']}"))
    print(wrapped("an edit needs: one image, --target, and a model that is ready; tinyworld is in the package"))
