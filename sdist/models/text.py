"""Prompts to embeddings: of one text encoder (Stable Diffusion), or of two side by side with a pooled one (SDXL)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..prediction import Text


class PromptEncoder:
    """One or two CLIP text encoders with their tokenizers.

    With two encoders the tokens are their second-last layers side by side, and the pooled embedding is that of the second.
    `zero_empty` gives an empty prompt an embedding of zeros, with which SDXL was trained.
    """

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any], zero_empty: bool = False) -> None:
        self.encoders, self.tokenizers, self.zero_empty = tuple(encoders), tuple(tokenizers), zero_empty
        self.pooled_width = self.encoders[1].config.projection_dim if len(self.encoders) == 2 else 0

    @property
    def width(self) -> int:
        """d, as the cross-attention reads it."""
        return sum(encoder.config.hidden_size for encoder in self.encoders)

    @property
    def length(self) -> int:
        """Tokens of a prompt with its padding."""
        return int(self.tokenizers[0].model_max_length)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        """Padded to the encoder's limit. Raises UserError for a prompt that is longer, which is never cut."""
        if not self.pooled_width:
            return Text(self.encoders[0](self._ids(prompts, 0))[0].float())
        first, second = (e(self._ids(prompts, i), output_hidden_states=True) for i, e in enumerate(self.encoders))
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1).float()
        empty = torch.tensor([self.zero_empty and not prompt for prompt in prompts], device=tokens.device)
        return Text(tokens.masked_fill(empty[:, None, None], 0), second.text_embeds.float().masked_fill(empty[:, None], 0))

    def token_ids(self, prompt: str, which: int = 0) -> list[int]:
        """The prompt's tokens, padded."""
        tokenizer = self.tokenizers[which]
        limit = tokenizer.model_max_length
        ids = tokenizer(prompt, padding="max_length", max_length=limit, truncation=False).input_ids
        if len(ids) > limit:
            shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
            raise UserError(f"prompt has {len(ids)} tokens, this model reads {limit} (two mark its ends): {shown!r}")
        return ids

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        """For each token, the characters [start, end) of the prompt that it stands for; empty for marks and padding."""
        tokenizer = self.tokenizers[0]
        options = {"padding": "max_length", "max_length": tokenizer.model_max_length}
        return list(tokenizer(prompt, return_offsets_mapping=True, **options).offset_mapping)

    def _ids(self, prompts: Sequence[str], which: int) -> Tensor:
        ids = [self.token_ids(prompt, which) for prompt in prompts]
        return torch.tensor(ids, device=self.encoders[which].device)
