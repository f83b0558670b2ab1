"""What becomes of images, for programs: one json object per line on stdout."""

import json
import sys
from collections.abc import Mapping
from typing import Any


class Events:
    """Prints each event at once, or keeps it where it is another process that prints."""

    def __init__(self) -> None:
        self.kept: list[Mapping[str, Any]] | None = None

    def emit(self, event: Mapping[str, Any]) -> None:
        if self.kept is not None:
            self.kept.append(event)
        else:
            sys.stdout.write(f"{json.dumps(event)}\n")
            sys.stdout.flush()
