"""Starts the studio: its folder, its address, and what a browser may load."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from PIL import Image as Pillow
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config.build import load_settings
from ..config.methods import shipped
from ..editors.loading import model_cache
from ..errors import UserError
from ..files.opening import MAX_PIXELS
from ..models.added_files import AddedFile, find_file
from ..models.base import Backbone
from ..models.catalogue import MODELS, default_method
from ..models.folders import on_disk
from ..models.options import LoadOptions
from ..models.other_vae import vae_folder
from ..models.vocabulary import word_list
from .bench import Bench
from .events import connect
from .form import headline
from .html import CSS, JS, theme
from .http_api import edit_function
from .limits import Limits, Offer
from .page import layout
from .scenes import scenes
from .visitors import Visitors

# nothing but this server: whatever a library of the page would fetch from elsewhere is refused by the browser
ANCESTORS = "frame-ancestors 'self'"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    f"{ANCESTORS}; form-action 'self'; base-uri 'self'; object-src 'none'"
)

LAST_STEP = 10.0  # seconds for the step that an edit is at when the studio is closed
LEFT = re.compile(r"/left/([0-9a-f]{32})$")


@dataclass(frozen=True)
class Address:
    """Where the studio listens, and for whom."""

    host: str = "127.0.0.1"
    port: int = 7860
    login: tuple[str, str] | None = None
    root_path: str = ""  # where visitors find it behind another server: /studio, or the whole URL
    frames: tuple[str, ...] = ()  # origins whose pages may show it in a frame


class ContentSecurityPolicy:
    """ASGI middleware that adds POLICY to every answer; `frames` are origins whose pages may show the studio in a frame."""

    def __init__(self, app: ASGIApp, frames: Sequence[str] = ()) -> None:
        self.app = app
        self._policy = POLICY.replace(ANCESTORS, " ".join((ANCESTORS, *frames))).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", self._policy)]
            await send(message)

        await self.app(scope, receive, with_policy)


class LeaveMiddleware:
    """ASGI middleware that takes a closed page's POST /left/TAB."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self.app, self._visitors = app, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (left := LEFT.search(scope["path"])):
            self._visitors.left(left[1])
            await Response(status_code=204)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def build(visitors: Visitors, offer: Offer) -> gr.Blocks:
    """The page with its handlers."""
    with gr.Blocks(title="sdist studio", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as demo:
        connect(demo, layout(offer), visitors)
        gr.api(edit_function(offer), api_name="edit")
    return demo.queue(default_concurrency_limit=4)


def methods_here(model: str) -> list[str]:
    """The methods of this installation, the model's own first, ablations last; those without steps to be watched are left out."""
    watchable = [name for name in shipped("method") if load_settings(name).editor.watchable]
    return sorted(watchable, key=lambda name: (name != default_method(model), "ablation" in headline(name)))


def models_here(first: str) -> list[str]:
    """The model that was asked for, and the aliases whose weights are on this disk; a visitor can name no other."""
    return list(dict.fromkeys([first, *(name for name, model in MODELS.items() if any(map(on_disk, model.sources)))]))


def load_first(model: str, methods: Sequence[str]) -> tuple[Backbone, list[str]]:
    """The model, and the methods with one that it can run at their head. Raises the first one's UserError if there is none."""
    kinds = {load_settings(name).editor.conditions: name for name in reversed(methods)}  # the first of each kind
    problems = []
    for name in sorted(kinds.values(), key=methods.index):
        try:
            loaded = model_cache.get(load_settings(name, model=model)).model
            return loaded, sorted(methods, key=lambda other: other != name)
        except UserError as error:
            problems.append(error)
    raise problems[0]


def names_of(added: LoadOptions) -> dict[str, dict[str, str]]:
    """What the page calls files that are put on a model, by kind: names of files, which tell visitors no folders.

    Raises UserError for one that is not there, and for two of one name.
    """
    names: dict[str, dict[str, str]] = {"vae": {}, "lora": {}, "embedding": {}}
    for kind, text in added.added:
        file = AddedFile.read(text)
        name = f"{Path(file.place).name}{f':{file.note}' if file.note else ''}"
        if kind != "vae" or vae_folder(file.place) is None:
            find_file(file.place, kind)
        if name in names[kind]:
            raise UserError(f"two of --{kind} are called {name}; rename one")
        names[kind][name] = file.absolute
    return names


def example_of(model: Backbone) -> list[tuple[str, str]]:
    """Source and target prompt that stand for any, where the model knows drawn scenes alone; else none."""
    return [(scenes()[0].source, scenes()[0].target)] if word_list(model) is not None else []


@contextmanager
def serving(model: str, address: Address, limits: Limits, added: LoadOptions = LoadOptions()) -> Iterator[str]:  # noqa: B008
    """The studio at its address, until the block is left. Raises UserError if the model is not there, or the port is taken.

    `added`: files that visitors may put on a model.
    """
    loaded, methods = load_first(model, methods_here(model))  # so that the first edit begins at once
    with tempfile.TemporaryDirectory(prefix="sdist-studio-") as folder, _process(GRADIO_TEMP_DIR=folder):
        root = Path(folder) / "visitors"
        root.mkdir()
        bench = Bench(limits.queue)
        offer = Offer(limits, methods, models_here(model), root, bench, names_of(added), *example_of(loaded))
        visitors = Visitors(offer)
        demo = build(visitors, offer)
        with visitors.swept():
            try:
                yield _launch(demo, address, limits, visitors, root)
            finally:
                visitors.sweep(everyone=True)  # first, so that the step that is being made ends while the server closes
                demo.close(verbose=False)
        bench.wait(LAST_STEP)


@contextmanager
def _process(**variables: str) -> Iterator[None]:
    """What holds for the whole process: variables that gradio has no argument for and asks again at every upload, and the
    size from which Pillow refuses a picture before it decodes it, wherever it is opened (twice MAX_IMAGE_PIXELS)."""
    before, pixels = dict(os.environ), Pillow.MAX_IMAGE_PIXELS
    os.environ |= variables
    Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
    try:
        yield
    finally:
        Pillow.MAX_IMAGE_PIXELS = pixels
        os.environ.clear()
        os.environ |= before


@contextmanager
def _without_proxies() -> Iterator[None]:
    """For the time in which gradio asks its own server whether it is there, which no proxy can know."""
    proxies = {name: os.environ.pop(name) for name in [*os.environ] if name.lower().endswith("_proxy")}
    os.environ["no_proxy"] = "*"  # of the system's settings too
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        os.environ |= proxies


def _launch(demo: gr.Blocks, address: Address, limits: Limits, visitors: Visitors, root: Path) -> str:
    try:
        with _without_proxies():
            _, url, _ = demo.launch(
                server_name=address.host, server_port=address.port, auth=address.login, root_path=address.root_path or None,
                share=False, inbrowser=False, quiet=True,
                prevent_thread_lock=True, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, run_history=False,
                show_error=False, footer_links=[], max_file_size=limits.upload, allowed_paths=[], blocked_paths=[str(root)],
                app_kwargs={
                    "middleware": [Middleware(ContentSecurityPolicy, address.frames), Middleware(LeaveMiddleware, visitors)],
                    "docs_url": None, "redoc_url": None, "openapi_url": None,
                },
                theme=theme(), css=CSS, head=f"<script>{JS}</script>",
            )  # fmt: skip
    except OSError:
        raise UserError(f"port {address.port} of {address.host} cannot be had; choose another with --port") from None
    except Exception as error:  # of several classes, where gradio does not reach itself
        why = " ".join(str(error).split())[:200]
        where = f"{address.host}:{address.port}"
        raise UserError(f"the studio at {where} cannot be reached from this machine itself: {why}") from None
    return url
