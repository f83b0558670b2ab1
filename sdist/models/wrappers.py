"""Networks that somebody else built and changed: taken out of their wrappers, and run as plain modules for a while.

What wraps or rewires a network without changing what it computes (compiling, data parallelism, casting weights layer by layer) is
set aside and put back; what moves its weights about is refused with the way to undo it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ..errors import UserError

CASTING = ("layerwise_casting", "peft_autocast_disable")  # hooks of diffusers that change number formats alone
GONE = object()


def unwrapped(part: Any) -> Any:
    """The network in what torch.compile or data parallelism made of it; anything else as it is."""
    while isinstance(part, nn.Module):
        if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
            part = part.module
        elif "_orig_mod" in part._modules:
            part = part._orig_mod
        else:
            break
    return part


def check_hooks(networks: Mapping[str, Any]) -> None:
    """Raises UserError for networks, by the names of their components, that hooks move or cache, and says how to undo that."""
    for name, network in networks.items():
        if hasattr(network, "_hf_hook"):
            raise _refusal(name, "hooks of offloading move it", "pipe.remove_all_hooks(), then pipe.to(device)")
        if any(hasattr(module, "_hf_hook") for module in network.modules()):
            undo = f"accelerate.hooks.remove_hook_from_module(pipe.{name}, recurse=True), then pipe.to(device)"
            raise _refusal(name, "hooks of offloading move its layers", undo)
    hooked = {name: own for name, network in networks.items() if (own := _foreign_hooks(network))}
    if hooked:
        parts, hooks = ", ".join(f"pipe.{name}" for name in hooked), sorted({hook for own in hooked.values() for hook in own})
        undo = f"for part in [{parts}]: diffusers.hooks.HookRegistry.check_if_exists_or_initialize(part)"
        calls = "; ".join(f"{undo}.remove_hook({hook!r})" for hook in hooks)
        raise _refusal(
            ", ".join(hooked), f"hooks of diffusers ({', '.join(hooks)}) move or cache it", f"{calls}, then pipe.to(device)"
        )
    for name, network in networks.items():
        _check_weights(name, network)


def _foreign_hooks(network: nn.Module) -> set[str]:
    """Names of diffusers' own hooks on the network's modules, but for those that change number formats alone."""
    registries: list[Any] = [module._diffusers_hook for module in network.modules() if hasattr(module, "_diffusers_hook")]
    return {hook for registry in registries for hook in registry.hooks if hook not in CASTING}


def storage_formats(networks: Mapping[str, nn.Module]) -> list[str]:
    """In which formats networks keep weights that they compute with in another."""
    found = [
        f"{name}: weights stored as {hook.storage_dtype}" for name, network in networks.items() for hook in _casting(network)
    ]
    return list(dict.fromkeys(found))


def check_casting(networks: Mapping[str, nn.Module]) -> None:
    """Raises UserError for a network whose layers are stored in another format than they compute in, outside of `plain`."""
    for name, network in networks.items():
        if any(hook.storage_dtype is not None for hook in _casting(network)):
            raise UserError(
                f"{name} casts its weights layer by layer, which a loaded model cannot: give it to a pipeline instead"
            )


@contextmanager
def plain(networks: Collection[nn.Module]) -> Iterator[None]:
    """In the block nothing of the networks is compiled or cast layer by layer; afterwards all is as it was.

    A compiled function does not see hooks that come later, and casting layers keep their weights in what no forward can read.
    """
    with ExitStack() as stack:
        for module in (module for network in networks for module in network.modules()):
            stack.enter_context(_attribute(module, "_compiled_call_impl", None))
            compiled = {name: value for name, value in vars(module).items() if hasattr(value, "_torchdynamo_orig_callable")}
            for name, value in compiled.items():
                stack.enter_context(_attribute(module, name, value._torchdynamo_orig_callable))
        for hook in (hook for network in networks for hook in _casting(network)):
            stack.enter_context(_attribute(hook, "storage_dtype", None))
            stack.enter_context(_attribute(hook, "compute_dtype", None))
        yield


def _casting(network: nn.Module) -> list[Any]:
    """Hooks that cast a module's weights before and after its forward."""
    hooks = [getattr(getattr(module, "_diffusers_hook", None), "hooks", {}) for module in network.modules()]
    return [own[CASTING[0]] for own in hooks if CASTING[0] in own]


@contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute of its own, if there is one, for the time of the block."""
    before = owner.__dict__.get(name, GONE)
    if before is GONE:
        yield
        return
    owner.__dict__[name] = value
    try:
        yield
    finally:
        owner.__dict__[name] = before


def _check_weights(name: str, network: nn.Module) -> None:
    quantizer = getattr(network, "hf_quantizer", None)
    odd = next((p for p in network.parameters() if not p.is_floating_point()), None)
    if quantizer is not None or odd is not None:
        how = f"{type(odd).__name__} of {odd.dtype}" if quantizer is None and odd is not None else type(quantizer).__name__
        raise UserError(f"{name} has quantized weights ({how}), which are not read here: give the network that they were made of")
    if any(p.is_inference() for p in network.parameters()):
        raise UserError(
            f"{name} was loaded in torch.inference_mode, so that nothing in it can have a gradient: load it outside of that, "
            "or under torch.inference_mode(False)"
        )
    if any(p.is_meta for p in network.parameters()):
        raise UserError(
            f"{name} has weights that are not in memory (meta tensors): load it without a device map, then pipe.to(device)"
        )


def _refusal(name: str, what: str, undo: str) -> UserError:
    return UserError(f"{name}: {what}, but every step calls the network, which stays on its device: {undo}")
