"""Whether wandb would take a run: asked before anything is loaded, in one request that does not wait for long."""

import base64
import json
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from ..config.settings import LogSettings
from ..errors import UserError

FORBIDDEN, LONGEST = "/\\#?%:", 128  # of a project's name
SECRET = re.compile(r"[\w.-]{40,}")  # what a key looks like, behind a prefix at most
WAIT = 10.0  # seconds
ACCOUNT = "take it from the page of your account"
UNKNOWN = f"does not know this key; {ACCOUNT}"
INSTEAD = "or keep the log on this disk with --set log.offline=true"


def check_account(settings: LogSettings) -> None:
    """Raises UserError if the project's name is refused, there is no key, or the server does not answer or know it."""
    name = settings.project
    found = "".join(character for character in FORBIDDEN if character in name)
    if not name or found or len(name) > LONGEST:
        raise UserError(f"log.project {name[:140]!r}: wandb takes 1 to {LONGEST} characters, and none of {FORBIDDEN}")
    if settings.offline or os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return
    server, key = _server()
    if not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        key = os.environ.get("WANDB_API_KEY") or key or _in_netrc(server)
        if not key:
            raise UserError(f"--log wandb: there is no key for {server}; set WANDB_API_KEY or call `wandb login`, {INSTEAD}")
        if not SECRET.fullmatch(key):
            raise UserError(
                f"--log wandb: the key for {server} has {len(key)} characters, a key 40 or more; {ACCOUNT}, {INSTEAD}"
            )
    problem = _refusal(server, key)
    if problem:
        raise UserError(f"--log wandb: {server} {problem}; {INSTEAD}")


def _server() -> tuple[str, str | None]:
    """Its address, and the key in wandb's own settings."""
    import wandb

    settings = wandb.setup().settings
    return settings.base_url.rstrip("/"), settings.api_key


def _refusal(server: str, key: str | None) -> str:
    """What is wrong with the server or the key; empty if nothing is."""
    request = urllib.request.Request(f"{server}/graphql", json.dumps({"query": "{viewer{username}}"}).encode())
    request.add_header("Content-Type", "application/json")
    if key is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"api:{key}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            viewer = json.load(answer)["data"]["viewer"]
    except urllib.error.HTTPError as error:
        known = error.code in (401, 403)
        return UNKNOWN if known else f"answers with HTTP {error.code}"
    except (OSError, HTTPException) as error:  # no network, no such host, a proxy, a timeout
        return f"does not answer ({getattr(error, 'reason', None) or error or type(error).__name__})"
    except (ValueError, LookupError, TypeError):
        return "answers, but not as wandb does; is WANDB_BASE_URL right?"
    return "" if viewer or key is None else UNKNOWN


def _in_netrc(server: str) -> str | None:
    """The key that `wandb login` keeps."""
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((path for place in places if place and (path := Path(place).expanduser()).is_file()), None)
    try:
        entry = None if path is None else netrc(path).authenticators(urlsplit(server).hostname or "")
    except (OSError, NetrcParseError):
        return None
    return entry[2] if entry else None
