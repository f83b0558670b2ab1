"""What a visitor may ask for, and how a refusal is said."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown
from ..image_guidance.catalogue import ADAPTERS, AUTO
from .bench import Bench

log = logging.getLogger("sdist")

METHOD_KEYS = (
    "loss", "regularizers", "filter", "normalizer", "gamma", "optimizer", "timesteps", "prompts", "stop", "image_guidance",
    "scale",
)  # fmt: skip
KEY = re.compile(r"\w+(\.\w+)*")
MEGABYTE = 2**20
LONGEST_PROMPT = 2000  # characters


@dataclass(frozen=True)
class Limits:
    """Set when the studio is started."""

    side: int = 1024  # pixels of the edited picture's long side
    steps: int = 1000
    queue: int = 16  # edits that wait at once
    edits: int = 12  # of one press: methods x seeds
    upload: int = 25 * MEGABYTE  # bytes of a file

    def check_steps(self, steps: int) -> None:
        if steps > self.steps:
            raise UserError(f"{steps} steps: this studio makes at most {self.steps} (--max-steps)")

    def check_size(self, width: int, height: int) -> None:
        """Of an edited picture, before anything is computed."""
        if max(width, height) > self.side:
            raise UserError(f"size {width} x {height}: this studio edits up to {self.side} pixels per side (--max-side)")

    def check_edits(self, edits: int) -> None:
        if not 1 <= edits <= self.edits:
            raise UserError(f"{edits} edits at once: choose 1 to {self.edits}, that is methods times seeds")


@dataclass(frozen=True)
class Offer:
    """What this studio lets a visitor choose from, and where it keeps what visitors give."""

    limits: Limits
    methods: list[str]
    models: list[str]
    root: Path
    bench: Bench
    added: dict[str, dict[str, str]] = field(default_factory=dict)  # by vae, lora and embedding: names on the page, and files
    example: tuple[str, str] = ("a cat on a sofa", "a cat wearing a hat on a sofa")  # prompts of the model's world

    def chosen(self, vae: str, lora: Sequence[str], embedding: Sequence[str]) -> dict[str, Any]:
        """Settings of what a visitor puts on the model. Raises UserError for what is not offered."""
        return {
            "vae": self._file("vae", vae) if vae else "",
            "lora": [self._file("lora", name) for name in lora],
            "embedding": [self._file("embedding", name) for name in embedding],
        }

    def _file(self, kind: str, name: str) -> str:
        offered = self.added.get(kind, {})
        if name not in offered:
            raise unknown(kind, name, offered, "this studio")
        return offered[name]

    def named(self, kind: str, files: Sequence[str]) -> list[str]:
        """The names of files of a run card. Raises UserError for one that is not offered."""
        names = {file: name for name, file in self.added.get(kind, {}).items()}
        if other := [Path(file).name for file in files if file not in names]:
            raise UserError(f"this run card has {kind} {other[0]}, which this studio does not offer; sdist replay loads it")
        return [names[file] for file in files]


def plain_overrides(text: str) -> list[str]:
    """Lines KEY=VALUE of a method's yaml. Raises UserError for one that is not about the method, or that would look things up."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        key = line.partition("=")[0].strip()
        own = key.startswith("editor.") and key != "editor.name"
        if not KEY.fullmatch(key) or not (own or key.split(".")[0] in METHOD_KEYS):
            raise unknown("setting", key, (*METHOD_KEYS, "editor.KEY"), "the studio's settings (KEY=VALUE, one per line)")
    check_literal(text)
    return lines


def check_literal(text: str) -> None:
    """Raises UserError for ${...}, which could read this machine's environment."""
    if "${" in text:
        raise UserError("settings from the browser are taken literally: ${...} is not allowed")


def check_guide(adapter: str | None, clip: str | None) -> None:
    """Raises UserError for an IP-Adapter or a CLIP by file, folder or hub id, which would be looked for here or fetched."""
    if adapter not in (None, AUTO, *ADAPTERS):
        raise unknown("IP-Adapter", str(adapter), (AUTO, *ADAPTERS), "this studio")
    if clip is not None:
        raise UserError(f"this studio reads images with the adapter's own CLIP: leave clip out, got '{clip}'")


def check_prompts(*prompts: str) -> None:
    for prompt in prompts:
        if len(prompt) > LONGEST_PROMPT:
            raise UserError(f"a prompt has {len(prompt)} characters; at most {LONGEST_PROMPT} are read")


def reason(error: Exception) -> str:
    """What went wrong, for the page: a UserError's text, else no more than that it failed."""
    if isinstance(error, UserError | FloatingPointError):
        return str(error)
    log.error("the studio failed", exc_info=error)
    return f"this failed ({type(error).__name__}); the terminal shows where"
