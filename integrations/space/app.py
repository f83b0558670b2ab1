"""The studio as a Space of Hugging Face, whose page shows it in a frame. SDIST_APP has further arguments of `sdist app`."""

import os
import shlex
import sys

from sdist.cli import main

PAGE = "https://huggingface.co"

if __name__ == "__main__":
    more = shlex.split(os.environ.get("SDIST_APP", ""))
    sys.exit(main(["app", "--host", "0.0.0.0", "--allow-iframe", PAGE, *more]))
