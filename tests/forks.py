"""A process that has imported all of sdist and starts commands as forks of itself, to be killed: imports take seconds."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Forks:
    """Starts `sdist ARGUMENTS` and says how it ended; `log` holds what the last one printed."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self._process, self.log = process, log

    def start(self, arguments: list[str], largest: int | None = None) -> int:
        """The id of a new process; a file that it writes may have `largest` bytes."""
        return self._ask({"arguments": arguments, "largest": largest, "log": str(self.log)})

    def wait(self, process: int) -> int:
        """Its exit code, or minus the signal that ended it."""
        return self._ask({"wait": process})

    def run(self, arguments: list[str], largest: int | None = None) -> int:
        return self.wait(self.start(arguments, largest))

    def stop(self, process: int, seconds: float, how: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal after a while; one that has ended by then is not harmed, as it is not yet waited for."""
        time.sleep(seconds)
        os.kill(process, how)
        return self.wait(process)

    def error(self) -> str:
        """The one error that the last one printed."""
        text = self.log.read_text()
        assert "Traceback" not in text
        (line,) = [line for line in text.splitlines() if line.startswith("sdist: error:")]
        return line

    def _ask(self, question: dict) -> int:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.forks"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes) as process:
        process.stdout.readline()  # it has imported everything
        yield Forks(process, folder / "log.txt")
        process.stdin.close()


def serve() -> None:
    """Computes nothing itself, so that no thread is there when it forks."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    from sdist.commands import run  # noqa: F401
    from sdist.jobs.engines import local  # noqa: F401
    from sdist.taggers import default_tagger

    default_tagger()
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            print(os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1]), flush=True)
        elif process := os.fork():
            print(process, flush=True)
        else:
            _be(question)


def _be(question: dict) -> None:
    """The child: sdist with its output in a file."""
    from sdist.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started all of this with it ignored
    output = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if question["largest"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (question["largest"], question["largest"]))
    code = 1
    try:
        code = main(question["arguments"])
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
