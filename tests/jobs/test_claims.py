"""Processes at one output share the work: claims, those that were left behind, and what a store allows."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from sdist.cli import main
from sdist.files.storage import names, storage_path, write
from sdist.jobs.claims import STALE, WRITING, Claims, process

from ..forks import forks
from ..stores import Objects
from ..test_cli import listed, run_arguments  # noqa: F401
from .test_jobs import assert_same, folder  # noqa: F401

fsspec.register_implementation(Objects.protocol, Objects, clobber=True)


@pytest.fixture
def other() -> Iterator[subprocess.Popen]:
    """A process that is at work until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as started:
        yield started
        started.kill()


def claim(output: Path, name: str, **fields: object) -> Path:
    """A claim as another process leaves it."""
    path = output / "claims" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"owner": "another", "host": os.uname().nodename, "pid": 1, "process": "", "time": time.time(), **fields}
    path.write_text(json.dumps(content))
    return path


def at_work(pid: int) -> dict[str, object]:
    return {"pid": pid, "process": process(pid)}


def test_a_claim_is_one_owners(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    with first.renewed(), second.renewed():
        assert first.take("a")
        assert first.take("a")
        assert not second.take("a")
        assert second.take("b")
        assert second.of_others() == {"a"}
        first.release("a")
        assert second.take("a")
    assert list(tmp_path.iterdir()) == []


def test_of_many_threads_one_takes_it(tmp_path: Path) -> None:
    taken, everyone = list[bool](), threading.Barrier(8)

    def take() -> None:
        claims = Claims(tmp_path)
        everyone.wait()
        for i in range(20):
            taken.append(claims.take(f"image {i}"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (160, 20)


@pytest.mark.parametrize(
    ("fields", "age", "is_free"),
    [
        ({"pid": 2**22 + 1, "process": process(os.getpid())}, 0, True),  # gone
        ({"pid": os.getpid(), "process": f"{process(os.getpid())}1"}, 0, True),  # another process of the same number
        ({"host": "elsewhere"}, 0, False),
        ({"host": "elsewhere"}, STALE + 60, True),
        ({"process": "another-boot:pid:[1] 5"}, 0, False),  # in a container of the same name
        ({"process": "another-boot:pid:[1] 5"}, STALE + 60, True),
    ],
)
def test_a_claim_that_was_left_behind_is_taken_over(tmp_path: Path, fields: dict, age: float, is_free: bool) -> None:
    path = claim(tmp_path, "a", **fields)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"time": written["time"] - age}))
    assert Claims(tmp_path).take("a") == is_free
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert (json.loads(path.read_text())["owner"] == "another") != is_free


OWN = {"owner": "x", "host": os.uname().nodename, "pid": 1, "process": process(os.getpid()), "time": 0.0}
NO_CLAIMS = ["", "{", "[]", "[1]", '"str"', "null", "[" * 100000, "\udcff"] + [
    json.dumps({**OWN, **wrong}) for wrong in ({"time": "abc"}, {"time": None}, {"process": 5}, {"pid": None}, {"owner": []})
]


@pytest.mark.parametrize("content", NO_CLAIMS, ids=range(len(NO_CLAIMS)))
def test_what_is_no_claim_may_be_one_that_is_being_written_for_some_seconds(tmp_path: Path, caplog, content: str) -> None:
    path = claim(tmp_path, "a")
    caplog.set_level("INFO", "sdist")
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert not Claims(tmp_path).take("a")
    assert caplog.messages == []
    os.utime(path, (time.time() - 2 * WRITING,) * 2)
    assert Claims(tmp_path).of_others() == set()
    assert Claims(tmp_path).take("a")
    assert caplog.messages == ["a: its claim cannot be read and does not count"]


def test_a_living_claim_is_renewed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sdist.jobs.claims.RENEWED", 0.02)
    claims = Claims(tmp_path)
    with claims.renewed():
        claims.take("a")
        before = json.loads((tmp_path / "claims" / "a.json").read_text())["time"]
        deadline = time.monotonic() + 10
        while json.loads((tmp_path / "claims" / "a.json").read_text())["time"] == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert json.loads((tmp_path / "claims" / "a.json").read_text())["time"] > before


def test_a_claim_that_is_released_while_it_is_renewed_stays_released(tmp_path: Path, monkeypatch) -> None:
    claims, renewing, released = Claims(tmp_path), threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> None:
        renewing.set()
        released.wait(0.1)
        write(path, data)

    monkeypatch.setattr("sdist.jobs.claims.RENEWED", 0.01)
    monkeypatch.setattr("sdist.jobs.claims.write", slow)
    with claims.renewed():
        assert claims.take("a")
        assert renewing.wait(10)
        claims.release("a")
        released.set()
        time.sleep(0.1)
        assert names(tmp_path / "claims") == set()


def test_an_actors_claims_are_of_the_same_owner(tmp_path: Path) -> None:
    driver = Claims(tmp_path)
    actor = pickle.loads(pickle.dumps(driver))
    assert actor.take("a")
    assert driver.of_others() == set()
    assert driver.take("a")
    assert not Claims(tmp_path).take("a")


def test_an_image_that_another_process_makes_is_left_to_it(
    listed: Path, tiny_folder: Path, tmp_path: Path, other: subprocess.Popen, capsys, caplog  # noqa: F811
) -> None:  # fmt: skip
    out = tmp_path / "out"
    claim(out, "1_seed0", **at_work(other.pid))
    claim(out, "2_seed0", pid=2**22 + 1, process=process(os.getpid()))
    part = out / ".1_seed0.png.0123abcd.part"
    part.touch()
    assert main(run_arguments(listed, tiny_folder, out)) == 0
    assert "3 of 4 made, 0 already there, 0 failed, 1 left to another process\n" in capsys.readouterr().out
    assert f"process {other.pid} on {os.uname().nodename} is at work here too" in caplog.text
    assert part.exists()
    assert names(out / "claims") == {"1_seed0.json"}
    other.kill()
    other.wait()
    assert main(run_arguments(listed, tiny_folder, out)) == 0
    assert "1 of 4 made, 3 already there, 0 failed\n" in capsys.readouterr().out
    assert not (out / "claims").exists()
    assert not part.exists()


def test_an_image_that_was_made_meanwhile_is_not_made_again(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    out, take = tmp_path / "out", Claims.take
    arguments = run_arguments(listed, tiny_folder, out)

    def slow(self: Claims, name: str) -> bool:
        if name == "0_seed0":
            monkeypatch.setattr(Claims, "take", take)
            assert main(arguments) == 0
        return take(self, name)

    monkeypatch.setattr(Claims, "take", slow)
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " made, " in line]
    assert lines == [
        "4 of 4 made, 0 already there, 0 failed",
        "0 of 4 made, 0 already there, 0 failed, 4 left to another process",
    ]


def test_two_processes_share_the_rows(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    def made(log: Path) -> int:
        (line,) = [line for line in log.read_text().splitlines() if " made, " in line]
        return int(line.split()[0])

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    arguments = run_arguments(folder, tiny_folder, tmp_path / "out", "--parallel", "1", "--steps", "20")
    with forks(tmp_path / "a") as one, forks(tmp_path / "b") as two:
        processes = one.start(arguments), two.start(arguments)
        assert [one.wait(processes[0]), two.wait(processes[1])] == [0, 0]
        shares = [made(started.log) for started in (one, two)]
        assert sum(shares) == 6
        assert 0 not in shares
        assert one.run(run_arguments(folder, tiny_folder, tmp_path / "whole", "--parallel", "1", "--steps", "20")) == 0
    assert_same(tmp_path / "whole", tmp_path / "out")


def test_a_store_is_asked_and_told(listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys, caplog) -> None:  # noqa: F811
    monkeypatch.setattr(Objects, "root", tmp_path)
    arguments = run_arguments(listed, tiny_folder, "objects://bucket/out")
    path = claim(tmp_path / "bucket" / "out", "1_seed0", host="elsewhere")
    assert main(arguments) == 0
    assert "3 of 4 made, 0 already there, 0 failed, 1 left to another process\n" in capsys.readouterr().out
    assert "a store cannot keep two from beginning the same one at once" in caplog.text
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"time": content["time"] - STALE - 1}))
    assert main(arguments) == 0
    assert "1 of 4 made, 3 already there, 0 failed\n" in capsys.readouterr().out
    assert names(storage_path("objects://bucket/out") / "claims") == set()
