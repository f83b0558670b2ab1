"""Prompts to embeddings: what a family's text encoders must tell, and a single CLIP text encoder."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import UserError
from ..prediction import Text
from ..prompts import parse_weights
from .inversion import with_all_vectors

LANGUAGE_MODELS = ("T5", "UMT5", "Qwen", "Gemma", "Mistral")  # what the names of their classes begin with
LIMITLESS = 10**5  # tokens: no encoder reads as many, tokenizers without a limit say more


def text_format(encoder: type, dtype: torch.dtype) -> torch.dtype:
    """The format of a network of that class beside a denoiser in `dtype`, if it is no denoiser itself.

    Language models (T5, Qwen), of billions of weights, are in bf16 where the denoiser is in half precision; T5 overflows in
    fp16. CLIP's encoders are small, and in float32.
    """
    is_large = encoder.__name__.startswith(LANGUAGE_MODELS)
    return torch.bfloat16 if is_large and dtype != torch.float32 else torch.float32


class PromptEncoder(ABC):
    """Text encoders, each with its tokenizer; the first tokenizer's tokens are those that attention looks at."""

    layer: ClassVar[int] = 1  # of CLIP, counted from its end, that is read where none is left out
    reads_blocks: ClassVar[bool] = False  # whether a prompt can be read in several blocks
    reads_weights: ClassVar[bool] = False  # whether its parts can be weighed

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any]) -> None:
        self.encoders, self.tokenizers = tuple(encoders), tuple(tokenizers)
        self.skip, self.blocks, self.weighs = 0, 1, False

    def configure(self, clip_skip: int, prompt_blocks: int, prompt_weights: bool = False) -> None:
        """Leaves out so many last layers of CLIP, reads prompts in so many blocks, and their weights or not.

        Raises UserError where that cannot be.
        """
        if clip_skip and not self.clips:
            raise UserError("--clip-skip: this model's prompts are not embedded by layers of CLIP; leave it out")
        layers = min((clip.config.num_hidden_layers for clip in self.clips), default=0)
        if clip_skip and clip_skip + self.layer > layers:
            which = "the last" if self.layer == 1 else "the one before the last"
            raise UserError(
                f"--clip-skip {clip_skip}: this model's text encoder has {layers} layers and {which} is read: leave out at most "
                f"{max(0, layers - self.layer)}"
            )
        if prompt_blocks > 1 and not self.reads_blocks:
            raise UserError(f"--prompt-blocks {prompt_blocks}: this model reads {self.length} tokens of a prompt in one")
        if prompt_weights and not self.reads_weights:
            raise UserError("--prompt-weights: only prompts that CLIP alone reads are weighed, this model has another encoder")
        self.skip, self.blocks, self.weighs = clip_skip, prompt_blocks, prompt_weights

    @property
    def clips(self) -> Sequence[Any]:
        """The encoders of which last layers can be left out."""
        return ()

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Text:
        """Padded to the encoder's limit, in float32. Raises UserError for a prompt that is longer, which is never cut."""

    @property
    def length(self) -> int:
        """Tokens of an embedded prompt with its padding."""
        return self.limit(0)

    def limit(self, which: int) -> int:
        """Tokens of a prompt that an encoder reads: of what it and its tokenizer say the less.

        Raises UserError if neither says anything; a tokenizer without a limit says a number with thirty digits.
        """
        said = (self.tokenizers[which].model_max_length, self._config_value(which, "max_position_embeddings"))
        limits = [limit for limit in said if isinstance(limit, int) and 2 < limit < LIMITLESS]
        if not limits:
            raise UserError(
                f"the tokenizer has no usable limit ({said[0]!r}), nor has its text encoder: write model_max_length in "
                "tokenizer_config.json"
            )
        return min(limits)

    def plain(self, prompt: str) -> str:
        """The prompt as it is read: with blanks in place of the signs of its weights, if they are."""
        return parse_weights(prompt)[0] if self.weighs else prompt

    def wrapped(self, prompt: str) -> str:
        """What a tokenizer is given of a prompt: itself, or a template around it."""
        return prompt

    def token_ids(self, prompt: str, which: int = 0) -> list[int]:
        """The prompt's tokens, padded. Raises UserError if the tokenizer's limit does not hold them."""
        tokenizer, limit = self.tokenizers[which], self.limit(which)
        if getattr(tokenizer, "pad_token", "") is None:
            raise UserError(f"the tokenizer ({type(tokenizer).__name__}) has no pad_token: write one in tokenizer_config.json")
        read = tokenizer(self.wrapped(prompt), padding="max_length", max_length=limit, truncation=False).input_ids
        ids = [token for token, _ in with_all_vectors(tokenizer, read, read)]
        if len(ids) > limit:
            shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
            advice = f"; --prompt-blocks {math.ceil((len(ids) - 2) / (limit - 2))} reads it" if self.reads_blocks else ""
            raise UserError(f"prompt has {len(ids)} tokens, this model reads {limit} (two mark its ends): {shown!r}{advice}")
        self._check_known(ids, which)
        return ids

    def reading(self, prompt: str) -> tuple[list[int], list[float]]:
        """The prompt's tokens, and their weights if they have any: two prompts with equal ones are the same to the model."""
        return self.token_ids(prompt), []

    def _check_known(self, ids: Sequence[int], which: int) -> None:
        """Raises UserError for tokens that the encoder has no embedding of."""
        tokenizer = self.tokenizers[which]
        if which < len(self.encoders) and max(ids, default=0) >= (rows := _embeddings(self.encoders[which])):
            raise UserError(
                f"the tokenizer has {len(tokenizer)} tokens and gives number {max(ids)}, its text encoder has {rows} embeddings: "
                "text_encoder.resize_token_embeddings(len(tokenizer)) makes room for added ones, else they are not of one model"
            )

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        """For each embedded token, the characters [start, end) of the prompt that it stands for; empty for marks and padding."""
        return self._spans(prompt, 0)

    def known_spans(self, prompt: str) -> list[tuple[int, int]]:
        """The characters [start, end) that a token of any of the encoders stands for, but for its mark of the unknown."""
        spans = []
        for which, tokenizer in enumerate(self.tokenizers):
            mark = getattr(tokenizer, "unk_token_id", None)
            tokens = zip(self.token_ids(prompt, which), self._spans(prompt, which), strict=True)
            spans += [(start, end) for token, (start, end) in tokens if start < end and token != mark]
        return spans

    @property
    def added_words(self) -> dict[str, str]:
        """Words that were added to a tokenizer, as by textual inversion, each with a digest of its vector."""
        found = {}
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=False):
            added = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
            for word, token in added.items():
                if word not in tokenizer.all_special_tokens and token < _embeddings(encoder):
                    row = encoder.get_input_embeddings().weight[token].detach().float().cpu()
                    found[word] = sha256(row.numpy().tobytes()).hexdigest()[:8]
        return found

    def _config_value(self, which: int, key: str) -> Any:
        """What the configuration of an encoder says; None where there is no such key, or no encoder."""
        return getattr(self.encoders[which].config, key, None) if which < len(self.encoders) else None

    def _spans(self, prompt: str, which: int) -> list[tuple[int, int]]:
        options = {"padding": "max_length", "max_length": self.limit(which)}
        whole = self.wrapped(prompt)
        read, before = self.tokenizers[which](whole, return_offsets_mapping=True, **options), whole.index(prompt)
        found = [span for _, span in with_all_vectors(self.tokenizers[which], read.input_ids, read.offset_mapping)]
        return [
            (start - before, end - before) if before <= start and end <= before + len(prompt) else (0, 0) for start, end in found
        ]

    def _ids(self, prompts: Sequence[str], which: int) -> Int[Tensor, "b l"]:
        ids = [self.token_ids(prompt, which) for prompt in prompts]
        return torch.tensor(ids, device=self.encoders[which].device)


def _embeddings(encoder: Any) -> int:
    """How many tokens it has vectors for, whatever its configuration says."""
    return len(encoder.get_input_embeddings().weight)


class ClipTexts(PromptEncoder):
    """Encoders that are all CLIP's: a long prompt is read in blocks, each between marks as a prompt of its own would be.

    Blocks that a prompt does not fill are empty prompts, so that what an image becomes does not depend on the prompts of others.

    Weights move tokens' embeddings along the line from those of the empty prompt at the same places, as ComfyUI does: e' = e_0 +
    w (e - e_0). A weight of 1 changes nothing, 0 leaves what an empty prompt has there. The pooled embedding is not weighed.
    """

    reads_blocks: ClassVar[bool] = True
    reads_weights: ClassVar[bool] = True

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        text = self.encode(prompts)
        weights = [self._weights(prompt) for prompt in prompts]
        if all(weight == 1 for row in weights for weight in row):
            return text
        tokens, empty = text.tokens, self.encode([""]).tokens
        return replace(text, tokens=empty + torch.tensor(weights, device=tokens.device)[..., None] * (tokens - empty))

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Text:
        """Without weights."""

    @property
    def clips(self) -> Sequence[Any]:
        return self.encoders

    @property
    def length(self) -> int:
        return self.blocks * super().length

    def token_ids(self, prompt: str, which: int = 0) -> list[int]:
        prompt = self.plain(prompt)
        if self.blocks == 1:
            return super().token_ids(prompt, which)
        ids = [token for token, _ in self._in_blocks(prompt, which)]
        self._check_known(ids, which)
        return ids

    def reading(self, prompt: str) -> tuple[list[int], list[float]]:
        return self.token_ids(prompt), self._weights(prompt)

    def _spans(self, prompt: str, which: int) -> list[tuple[int, int]]:
        prompt = self.plain(prompt)
        if self.blocks == 1:
            return super()._spans(prompt, which)
        return [span for _, span in self._in_blocks(prompt, which)]

    def _weights(self, prompt: str) -> list[float]:
        """Of each embedded token: that of the first of its characters; 1 of marks and padding. Empty if none are read."""
        if not self.weighs:
            return []
        _, of_characters = parse_weights(prompt)
        return [of_characters[start] if start < end else 1.0 for start, end in self.token_spans(prompt)]

    def _in_blocks(self, prompt: str, which: int) -> list[tuple[int, tuple[int, int]]]:
        """Tokens with the characters that they stand for, of all blocks. Raises UserError if there would have to be more."""
        tokenizer, limit = self.tokenizers[which], self.limit(which)
        read = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        first, *content, last = with_all_vectors(tokenizer, read.input_ids, [tuple(span) for span in read.offset_mapping])
        blocks = in_pieces(content, limit - 2)
        if len(blocks) > self.blocks:
            raise UserError(f"prompt has {len(content)} tokens, which needs --prompt-blocks {len(blocks)}: {prompt[:57]!r}...")
        padding = (tokenizer.pad_token_id, (0, 0))
        filled = [*blocks, *[[]] * (self.blocks - len(blocks))]
        return [pair for block in filled for pair in (first, *block, last, *[padding] * (limit - 2 - len(block)))]

    def _seen(self, prompts: Sequence[str], which: int) -> Any:
        """What an encoder makes of all blocks of prompts, one row per block."""
        ids = self._ids(prompts, which).unflatten(1, (self.blocks, -1)).flatten(0, 1)
        return self.encoders[which](ids, output_hidden_states=True)

    def _joined(self, rows: Float[Tensor, "n l d"]) -> Float[Tensor, "b _ d"]:
        """Blocks one behind the other."""
        return rows.unflatten(0, (-1, self.blocks)).flatten(1, 2).float()


def in_pieces(content: Sequence[tuple[int, tuple[int, int]]], size: int) -> list[list[tuple[int, tuple[int, int]]]]:
    """Tokens in pieces of at most `size`, which end where a word does if there is such a place."""
    pieces, rest = [], list(content)
    while len(rest) > size:
        ends = (i for i in range(size, 0, -1) if rest[i][1][0] > rest[i - 1][1][1])
        end = next(ends, size)
        pieces.append(rest[:end])
        rest = rest[end:]
    return [*pieces, rest]


class TextWithT5(PromptEncoder):
    """Encoders of which one is a T5; its tokenizer knows no limit, so the model says how much it reads."""

    t5: ClassVar[int]  # which of the encoders
    t5_tokens: int

    def limit(self, which: int) -> int:
        return self.t5_tokens if which == self.t5 else super().limit(which)


class TemplateText(PromptEncoder):
    """One language model, which reads a prompt in a template of its chat, and of whose layers some are shown."""

    tokens: ClassVar[int]  # that it reads of a prompt and its template

    @abstractmethod
    def wrapped(self, prompt: str) -> str: ...

    def limit(self, which: int) -> int:
        return self.tokens

    @torch.no_grad()
    def hidden_states(self, prompts: Sequence[str]) -> tuple[Sequence[Float[Tensor, "b l d"]], Bool[Tensor, "b l"]]:
        """What each layer makes of the prompts' tokens, the embedding first, and which of them are no padding."""
        ids = self._ids(prompts, 0)
        read = ids != self.tokenizers[0].pad_token_id
        return self.encoders[0](ids, attention_mask=read.long(), output_hidden_states=True).hidden_states, read

    def chat(self, prompt: str, **options: bool) -> str:
        """The prompt as the user's words in the tokenizer's own template, to be answered."""
        said = [{"role": "user", "content": prompt}]
        return str(self.tokenizers[0].apply_chat_template(said, tokenize=False, add_generation_prompt=True, **options))


class ClipText(ClipTexts):
    """The last layer of one CLIP text encoder, or one before it through the last norm, as diffusers has it."""

    def encode(self, prompts: Sequence[str]) -> Text:
        seen, encoder = self._seen(prompts, 0), self.encoders[0]
        if not self.skip:
            return Text(self._joined(seen.last_hidden_state))
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return Text(self._joined(norm(seen.hidden_states[-self.layer - self.skip])))
