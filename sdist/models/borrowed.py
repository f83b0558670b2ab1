"""Networks that somebody else built and changed: taken out of their wrappers, and run as plain modules for a while.

What wraps or rewires a network without changing what it computes (compiling, data parallelism, casting weights layer by layer) is
set aside and put back; what moves its weights about is refused with the way to undo it.
"""

from collections.abc import Iterable, Iterator, Mapping
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
        for module in network.modules():
            if hasattr(module, "_hf_hook"):
                undo = f"accelerate.hooks.remove_hook_from_module(pipe.{name}, recurse=True), then pipe.to(device)"
                raise _refusal(name, "hooks of offloading move its layers", undo)
            for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", ()):
                if hook not in CASTING:
                    undo = f"pipe.{name}._diffusers_hook.remove_hook({hook!r}), then pipe.to(device)"
                    raise _refusal(name, f"hooks of diffusers ({hook}) move or cache it", _with_registry(network, name, undo))
        _check_weights(name, network)


def check_casting(networks: Mapping[str, nn.Module]) -> None:
    """Raises UserError for a network whose layers are stored in another format than they compute in, outside of `plain`."""
    for name, network in networks.items():
        hooks = (getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).get(CASTING[0]) for module in network.modules())
        if any(hook is not None and hook.storage_dtype is not None for hook in hooks):
            raise UserError(
                f"{name} casts its weights layer by layer, which a loaded model cannot: give it to a pipeline instead"
            )


@contextmanager
def plain(networks: Iterable[nn.Module]) -> Iterator[None]:
    """In the block nothing of the networks is compiled or cast layer by layer; afterwards all is as it was.

    A compiled function does not see hooks that come later, and casting layers keep their weights in what no forward can read.
    """
    with ExitStack() as stack:
        for module in (module for network in networks for module in network.modules()):
            stack.enter_context(_attribute(module, "_compiled_call_impl", None))
            original = getattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable", None)
            if original is not None:
                stack.enter_context(_attribute(module, "forward", original))
            for name, hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).items():
                if name == CASTING[0]:
                    stack.enter_context(_attribute(hook, "storage_dtype", None))
                    stack.enter_context(_attribute(hook, "compute_dtype", None))
        yield


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
        how = type(quantizer).__name__ if quantizer is not None else f"{type(odd).__name__} of {odd.dtype}"  # type: ignore[union-attr]
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


def _with_registry(network: Any, name: str, undo: str) -> str:
    """Hooks of layers are removed through the network's own registry, which there may not be."""
    if hasattr(network, "_diffusers_hook"):
        return undo
    registry = f"diffusers.hooks.HookRegistry.check_if_exists_or_initialize(pipe.{name})"
    return undo.replace(f"pipe.{name}._diffusers_hook", registry)


def _refusal(name: str, what: str, undo: str) -> UserError:
    return UserError(f"{name}: {what}, but every step calls the network, which stays on its device: {undo}")
