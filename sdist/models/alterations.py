"""What changes a network's output and stands neither in its weights nor in its configuration: a run card names it.

Each finding is a line such as "unet: FreeU s1=0.9, ...". Nothing is found in a network as it was loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .structure import differences

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "sdist")
# processors of attention that are equal to rounding
PLAIN_PROCESSORS = (
    "AttnProcessor", "AttnProcessor2_0", "JointAttnProcessor2_0", "FluxAttnProcessor", "Flux2AttnProcessor",
    "Flux2ParallelSelfAttnProcessor", "QwenDoubleStreamAttnProcessor2_0", "ZSingleStreamAttnProcessor",
)  # fmt: skip
FREEU = ("s1", "s2", "b1", "b2")


def alterations(networks: Mapping[str, nn.Module], declared: Mapping[str, str]) -> list[str]:
    """Of networks by the names of their components; a family may declare one of a class of its own as module.Class."""
    found = []
    for name, network in networks.items():
        own = {*LIBRARIES, declared.get(name, "").rpartition(".")[0].partition(".")[0]} - {""}
        places: dict[str, list[str]] = {"tiling": [""]} if getattr(network, "use_tiling", False) else {}
        for place, module in network.named_modules():
            for line in (*_foreign(module, own), *_hooked(module), *_switched(module)):
                places.setdefault(line, []).append(place)
        for place, line in differences(network):
            places.setdefault(line, []).append(place)
        found += [f"{name}: {line}{_at(where)}" for line, where in places.items()]
    return [*found, *(f"hook {_named(hook)} on every module of torch" for hook in _everywhere())]


def _at(places: list[str]) -> str:
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f" at {places[0]}{more}" if places[0] else more


def _foreign(module: nn.Module, own: set[str]) -> Iterator[str]:
    """Code of others: the module's class, and methods that were replaced in the module itself."""
    if _root(type(module)) not in own or _root(type(module).forward) not in own:
        yield f"class {_named(type(module))}"
    casts = hasattr(module, "_diffusers_hook")
    for name, value in vars(module).items():
        method = getattr(type(module), name, None)
        if callable(method) and callable(value) and not (casts and name == "forward"):
            actual = getattr(value, "_torchdynamo_orig_callable", value)
            if getattr(actual, "__func__", actual) is not method:
                yield f"{name} replaced by {_named(actual)}"


def _hooked(module: nn.Module) -> Iterator[str]:
    """Hooks of others that see or change what a module gets and gives; those of transformers collect hidden states."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for hook in hooks.values():
            if _root(hook) not in ("sdist", "transformers"):
                yield f"hook {_named(hook)}"


def _everywhere() -> list[Any]:
    hooks = torch.nn.modules.module
    return [*hooks._global_forward_hooks.values(), *hooks._global_forward_pre_hooks.values()]


def _switched(module: nn.Module) -> Iterator[str]:
    """What diffusers and peft switch on in single modules."""
    values = {name: vars(module).get(name) for name in FREEU}
    if None not in values.values():
        yield "FreeU " + ", ".join(f"{name}={value}" for name, value in values.items())
    processor = getattr(module, "processor", None)
    kind = type(processor)
    if processor is not None and (kind.__name__ not in PLAIN_PROCESSORS or _root(kind) != "diffusers"):
        yield f"attention by {_named(type(processor))}"
    backend = getattr(processor, "_attention_backend", None)
    if backend is not None:
        yield f"attention backend {getattr(backend, 'value', backend)}"
    if hasattr(module, "lora_A") and hasattr(module, "active_adapters"):
        yield _lora(module)


def _lora(module: Any) -> str:
    """Which adapters act, and how strongly; the same adapter may have a strength of its own in each layer."""
    if module.merged:
        return f"LoRA {', '.join(module.merged_adapters)} fused"
    if module.disable_adapters:
        return "LoRA off"
    scales = [f"{name} ({module.scaling[name]:g})" for name in module.active_adapters if name in module.scaling]
    return f"LoRA {', '.join(scales) or 'of none'}"


def _named(thing: Callable[..., Any] | type) -> str:
    return f"{getattr(thing, '__qualname__', type(thing).__qualname__)} of {getattr(thing, '__module__', 'an unknown module')}"


def _root(thing: Any) -> str:
    return str(getattr(thing, "__module__", "")).partition(".")[0]
