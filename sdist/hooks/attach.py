"""The only place that touches a network's modules: `record` reads what they return, `add` adds to it, `steer` replaces what they
attend to.

All end with their block, whatever happens in it. Only a compiled network keeps its recording hooks (see CompiledForward), which
do nothing but keep the last outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..errors import UserError

# (Q, K, V), each (n, heads, tokens, d) -> softmax(s Q K^T) V; the layer's own takes a bias on s Q K^T as a fourth
Attend = Callable[..., Tensor]
Steering = Callable[[Tensor, Tensor, Tensor, Attend], Tensor]  # (Q, K, V, the layer's own attention) -> what takes its place
Addition = Callable[[Tensor], Tensor]  # what a module gets -> what is added to what it returns


class Tape:
    """Outputs of the last forward by module name, cut to some rows; a tuple, which has none, is kept whole."""

    def __init__(self, rows: slice) -> None:
        self.rows, self.values = rows, dict[str, Tensor | tuple[Tensor, ...]]()

    def __getitem__(self, name: str) -> Any:
        """Raises UserError for a module that the forward did not call."""
        if name not in self.values:
            raise _missed(name)
        value = self.values[name]
        return value if isinstance(value, tuple) else value[self.rows]


@contextmanager
def record(network: Any, names: Iterable[str], rows: slice) -> Iterator[Tape]:
    """A tape of modules of network.denoiser. Raises KeyError for a module that does not exist."""
    tape, handles, compiled = Tape(rows), list[RemovableHandle](), getattr(network, "compiled", None)
    modules = {name: _module(network.denoiser, name) for name in names}
    if compiled is not None:
        with compiled.watch(modules, tape.values):
            yield tape
        return
    try:
        for name, module in modules.items():
            handles.append(_hook(module, name, tape))
        yield tape
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def add(network: Any, additions: Mapping[str, Addition]) -> Iterator[None]:
    """Until the end of the block, modules of network.denoiser return more by what these functions give, by module name.

    A compiled network runs as it is in the block, as it does anyway where autograd is on. Raises UserError for a network that is
    checkpointed, and at the end of the block for a module that was not called in it, and KeyError for one that does not exist.
    """
    _refuse_checkpointing(network)
    called = set[str]()
    with ExitStack() as stack:
        if (compiled := getattr(network, "compiled", None)) is not None and not torch.is_grad_enabled():
            stack.enter_context(compiled.paused())
        for name, addition in additions.items():
            handle = _module(network.denoiser, name).register_forward_hook(_adding(name, addition, called))
            stack.callback(handle.remove)
        yield
    if missed := additions.keys() - called:
        raise _missed(min(missed))


@contextmanager
def steer(network: Any, steerings: Mapping[str, Steering]) -> Iterator[None]:
    """Until the end of the block, attention modules of network.denoiser compute what these functions say, by module name.

    A function gets queries, keys and values as they enter the attention itself, after all norms and rotations, for all rows of
    the call; what it returns goes to the output projection. Of several functions for a module the last one opened is asked, and
    its `attend`, which takes all rows, asks the one before. What calls scaled_dot_product_attention itself goes past the others.

    A compiled network runs as it is in the block.

    Raises UserError for a network that is checkpointed, for attention that is not scaled_dot_product_attention
    without a mask, and at the end of the block for a module that was not called in it, and KeyError for one that does not exist.
    """
    _refuse_checkpointing(network)
    with ExitStack() as stack:
        if (compiled := getattr(network, "compiled", None)) is not None:
            stack.enter_context(compiled.paused())
        for name, steering in steerings.items():
            stack.enter_context(_steered(_module(network.denoiser, name), name, steering))
        yield


@contextmanager
def _steered(module: nn.Module, name: str, steering: Steering) -> Iterator[None]:
    before = module.__dict__.get("forward")  # of a block around this one, or where accelerate moves or casts the module
    forward = before if isinstance(before, _SteeredForward) else _SteeredForward(name, module.forward)
    calls = forward.calls
    forward.chain.append(steering)
    module.forward = forward
    try:
        yield
    finally:
        forward.chain.pop()
        del module.forward
        if before is not None:
            module.forward = before
    if forward.calls == calls:
        raise _missed(name)


class _SteeredForward:
    """The forward of a module with functions that take its attention's place."""

    def __init__(self, name: str, forward: Callable[..., Any]) -> None:
        self.name, self.forward, self.chain, self.calls = name, forward, list[Steering](), 0

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        with _Interception(self) as interception:
            output = self.forward(*inputs, **options)
        if not interception.calls:
            raise UserError(f"{self.name} does not call scaled_dot_product_attention, so it cannot be steered")
        self.calls += 1
        return output

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        """Its arguments are those of scaled_dot_product_attention."""
        if attn_mask is not None:
            raise UserError(f"{self.name} attends under a mask, which cannot be steered")
        attend: Attend = partial(F.scaled_dot_product_attention, dropout_p=dropout_p, is_causal=is_causal, **options)
        for steering in self.chain:
            attend = partial(_ask, steering, attend)
        return attend(query, key, value)


def _ask(
    steering: Steering, attend: Attend, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    if attn_mask is not None:
        raise UserError("what adds a bias to attention has to be opened before what replaces attention")
    return steering(query, key, value, attend)


class _Interception(TorchFunctionMode):
    """In its block, calls of scaled_dot_product_attention go to a steered forward; torch has it off while one is answered."""

    def __init__(self, steered: _SteeredForward) -> None:
        super().__init__()
        self.steered, self.calls = steered, 0

    def __torch_function__(self, function: Any, types: Any, inputs: tuple = (), options: Any = None) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*inputs, **(options or {}))
        self.calls += 1
        return self.steered.attend(*inputs, **(options or {}))


def _refuse_checkpointing(network: Any) -> None:
    if torch.is_grad_enabled() and network.denoiser.is_gradient_checkpointing:  # the backward pass would call them as they were
        raise UserError("layers cannot be steered under gradient checkpointing; set checkpoint to false")


def _adding(name: str, addition: Addition, called: set[str]) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
    def added(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        called.add(name)
        return output + addition(inputs[0]).to(output)

    return added


def _missed(name: str) -> UserError:
    return UserError(
        f"{name} was not called, so nothing is known of it: is the network compiled? Pass one that is not; is its attention "
        "processor another? Give it diffusers' own, a UNet by set_attn_processor(AttnProcessor2_0())"
    )


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise KeyError(f"no module '{name}' in {type(model).__name__}") from None


def _hook(module: nn.Module, name: str, tape: Tape) -> RemovableHandle:
    def keep(module: nn.Module, inputs: tuple, output: Any) -> None:
        tape.values[name] = output

    return module.register_forward_hook(keep)
