"""Words of a prompt that a model cannot know: its tokenizer has no token for them, or it was trained on a list without them.

A list is words.txt in the pipeline's folder, one word per line; Stable Diffusion's text is as wide as the web, and has none.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..prompts import Word, parse_weights, words
from ..spelling import key
from .base import Backbone
from .catalogue import MODELS

log = logging.getLogger("sdist")

LIST = "words.txt"
UNWEIGHED = re.compile(r"\([^():]*:[^()]*\)?")
ENDINGS = ("s", "t", "d", "ll", "m", "re", "ve")  # what stands behind an apostrophe


def check_words(model: Backbone, prompt: str) -> None:
    """Raises UserError if the model knows no word of a prompt that has some."""
    unknown, known = _split(model, prompt)
    if unknown and not known:
        raise UserError(f"the model {model.name} knows no word of the prompt {prompt!r}; {_where(model)}")


def report_words(model: Backbone, prompts: Sequence[str]) -> None:
    """Says in one line which words of the prompts the model does not know, if any."""
    if unknown := unknown_words(model, prompts):
        log.warning("%s; %s", unknown, _where(model))


def report_weights(model: Backbone, prompts: Sequence[str]) -> None:
    """Says which prompt has weights, as (cat:1.3), that are not asked for, or what only looks like one: both are text."""
    if not model.text.reads_weights:
        return
    for prompt in prompts:
        if not model.text.weighs and parse_weights(prompt)[0] != prompt:
            log.warning("the weights in %r are read as text; --prompt-weights reads them as weights", prompt)
        elif model.text.weighs and (odd := UNWEIGHED.search(parse_weights(prompt)[0])):
            log.warning("%r in %r is no weight, as (cat:1.3) is, and is read as text", odd[0], prompt)


def unknown_words(model: Backbone, prompts: Sequence[str]) -> str:
    """The words of the prompts that the model does not know, in a line that says so; empty if it knows them all."""
    unknown = dict.fromkeys(word for prompt in prompts for word in _split(model, prompt)[0])
    return f"words that the model {model.name} does not know: {', '.join(unknown)}" if unknown else ""


def word_list(model: Backbone) -> Path | None:
    """The file that lists the words that the model was trained with, if there is one."""
    sources = MODELS[model.source].sources if model.source in MODELS else (model.source,)
    return next((path for source in sources if source and (path := Path(source) / LIST).is_file()), None)


def _where(model: Backbone) -> str:
    path, tokenizer = word_list(model), type(model.text.tokenizers[0]).__name__
    return f"those that it knows are in {path}" if path else f"its tokenizer ({tokenizer}) has no token for them"


def _split(model: Backbone, prompt: str) -> tuple[list[str], list[str]]:
    """The words that the model does not know, and the others; a prompt of signs alone is one word."""
    path, spans = word_list(model), model.text.known_spans(prompt)
    listed = None if path is None else {key(line) for line in path.read_text(encoding="utf-8").split()}
    in_prompt = [word for word in words(prompt, "released") if key(word.text) not in ENDINGS]
    if not in_prompt and prompt.strip():
        in_prompt = [Word(prompt.strip(), 0, len(prompt))]

    def is_known(word: Word) -> bool:
        if listed is not None:
            return key(word.text) in listed
        return any(start < word.end and end > word.start for start, end in spans)

    return [w.text for w in in_prompt if not is_known(w)], [w.text for w in in_prompt if is_known(w)]
