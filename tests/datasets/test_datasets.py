"""Sets of edits in their true formats, made small: joined by key, and whatever is missing or odd is named."""

import csv
import inspect
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.cli import main
from sdist.datasets.base import Pair, check, load_dataset
from sdist.datasets.pie_bench import decode_runs
from sdist.errors import UserError
from sdist.registry import DATASETS
from sdist.tinyworld.edits import sample_edit, write_pairs
from sdist.tinyworld.instructions import instructions_of

from ..need import need


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "t.png"):
        picture(tmp_path / "images" / name)
    rows = [["img_path", "source_prompt", "target_prompt", "category", "truth"],
            ["b.png", "", "a dog", "change", "t.png"], ["a.png", "a cat", "a cat in a hat", "add", ""]]  # fmt: skip
    write_csv(tmp_path / "index.csv", rows)
    return tmp_path


@pytest.fixture
def pie(tmp_path: Path) -> Path:
    records = {}
    for number, kind in enumerate(("0_random_140", "2_add_object_80")):
        key = f"{number:012d}"
        picture(tmp_path / "annotation_images" / kind / f"{key}.jpg")
        records[key] = {
            "image_path": f"{kind}/{key}.jpg", "original_prompt": "a mountain bicycle", "editing_type_id": kind[0],
            "editing_prompt": "a [rusty] mountain bicycle", "editing_instruction": "make it rusty",
            "blended_word": "bicycle bicycle", "mask": [SIDE * 10 + 5, 20],
        }  # fmt: skip
    (tmp_path / "mapping_file.json").write_text(json.dumps(records))
    return tmp_path


SIDE = 512
TURNS = {"12": 1, "243361": 3}  # session -> turns


@pytest.fixture
def magicbrush(tmp_path: Path) -> Path:
    turns, prompts, captions, rows = [], {}, {}, [["idx", "category"]]
    for session, count in TURNS.items():
        names = [f"{session}-input.png", *(f"{session}-output{k}.png" for k in range(1, count + 1))]
        for name in names:
            picture(tmp_path / "images" / session / name)
        prompts[session] = {name: f"all of {name.split('-')[1]}" for name in names}
        captions[session] = {name: f"new in {name.split('-')[1]}" for name in names[1:]}
        turns += [{"input": a, "mask": "", "output": b, "instruction": f"make it {b}"} for a, b in pairwise(names)]
        rows += [[name.removesuffix(".png"), "add" if "input" in name else "change"] for name in names[:-1]]
    rows = [rows[0], *rows[:0:-1]]  # the release's table has another order than the turns
    (tmp_path / "edit_turns.json").write_text(json.dumps(turns))
    (tmp_path / "global_descriptions.json").write_text(json.dumps(prompts))
    (tmp_path / "local_descriptions.json").write_text(json.dumps(captions))
    write_csv(tmp_path / "magicbrush_category.csv", rows)
    return tmp_path


def test_index(index: Path) -> None:
    first, second = load_dataset(f"index:{index}")
    assert first == Pair("000", index / "images/b.png", "", "a dog", "change", "", index / "images/t.png")
    assert (second.key, second.truth, second.text) == ("001", None, "a cat in a hat")


def test_a_mask_in_index_csv_says_where_an_edit_may_happen(index: Path) -> None:
    (index / "masks").mkdir()
    size = Image.open(index / "images" / "a.png").size
    Image.new("L", size, 255).save(index / "masks" / "m.png")
    write_csv(index / "index.csv", [["img_path", "source_prompt", "target_prompt", "mask"], ["a.png", "", "a dog", "m.png"]])
    (pair,) = load_dataset(f"index:{index}")
    assert pair.mask is not None
    assert (pair.mask().shape, pair.mask().all()) == (size[::-1], True)


def test_pie_bench(pie: Path) -> None:
    first, second = load_dataset(f"pie_bench:{pie}")
    assert (first.key, first.target, first.category) == ("000000000000", "a rusty mountain bicycle", "random")
    assert (second.category, second.instruction) == ("add_object", "make it rusty")
    assert second.mask is not None
    assert second.mask().sum() == 2064


def test_magicbrush_is_joined_by_name(magicbrush: Path) -> None:
    pairs = {pair.key: pair for pair in load_dataset(f"magicbrush:{magicbrush}")}
    assert list(pairs) == ["12_1", "243361_1", "243361_inde_2", "243361_inde_3"]
    third = pairs["243361_inde_3"]
    assert (third.image.name, third.truth.name) == ("243361-output2.png", "243361-output3.png")
    assert (third.source, third.target) == ("all of output2.png", "all of output3.png")
    assert third.text == "new in output3.png"
    assert third.instruction == "make it 243361-output3.png"
    assert {key: pair.category for key, pair in pairs.items()} == {
        "12_1": "Add", "243361_1": "Add", "243361_inde_2": "Other", "243361_inde_3": "Other",
    }  # fmt: skip


def test_the_row_that_stands_there_twice(magicbrush: Path) -> None:
    """The release names one turn twice and another never."""
    path = magicbrush / "magicbrush_category.csv"
    path.write_text(path.read_text().replace("243361-output2", "243361-output1"))
    official, clean = (load_dataset(f"magicbrush:{magicbrush}", profile) for profile in ("official", "clean"))
    assert [(pair.category, pair.counted) for pair in official] == [("Add", 1), ("Add", 1), ("Other", 2), ("", 0)]
    assert [(pair.category, pair.counted) for pair in clean] == [("Add", 1), ("Add", 1), ("Other", 1), ("Other", 1)]


def test_bad_tables_of_categories_are_refused(magicbrush: Path) -> None:
    path = magicbrush / "magicbrush_category.csv"

    def refused(text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            load_dataset(f"magicbrush:{magicbrush}")

    refused("a,b\n1,2\n", "magicbrush_category.csv has no column idx, category: its header is 'a,b', it needs 'idx,category'")
    refused("idx,category\n12-input,add\n12-input,change\n", "12-input has 2 rows; one is allowed")
    refused("idx,category\n13-input,add\n", "there is no turn whose input is 13-input")


@pytest.mark.parametrize(
    ("runs", "count"), [([], 2044), ([512 * 10 + 5, 20], 2064), ([512 * 512 - 3, 100], 2044), ([0, 262144], 262144)]
)
def test_runs_of_a_mask(runs: list[int], count: int) -> None:
    assert decode_runs(runs).sum() == count


@pytest.mark.parametrize("runs", [[1], [3, -1]])
def test_bad_runs_are_refused(runs: list[int]) -> None:
    with pytest.raises(UserError, match="pairs of start and length"):
        decode_runs(runs)


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_dataset_is_a_documented_file(name: str) -> None:
    dataset = DATASETS.get(name)
    assert Path(inspect.getfile(dataset)).stem == name
    assert dataset.__doc__
    assert f"| `{name}:" in (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def change_json(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_what_is_missing_or_odd_is_named(index: Path, pie: Path, magicbrush: Path) -> None:
    """All three formats stand in one folder here; each is broken in turn."""

    def refused(kind: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_dataset(f"{kind}:{index}")

    with pytest.raises(UserError, match="dataset 'nothing'"):
        load_dataset("nothing:.")
    with pytest.raises(UserError, match="names no folder"):
        load_dataset("index")
    with pytest.raises(UserError, match=f"{index} names no format: index:{index} has an index.csv, others are index, magic"):
        load_dataset(str(index))
    with pytest.raises(UserError, match="did you mean 'pie_bench'"):
        load_dataset("PIE-Bench:.")
    with pytest.raises(UserError, match="does not exist"):
        load_dataset("index:/nowhere")
    with pytest.raises(UserError, match="is a file; give the folder around it"):
        load_dataset(f"index:{index}/index.csv")
    change_json(pie / "mapping_file.json", lambda d: d["000000000001"].update(image_path="../../etc/passwd"))
    refused("pie_bench", "leaves the folder")
    change_json(pie / "mapping_file.json", lambda d: d["000000000001"].update(mask=[1, -2]))
    refused("pie_bench", "000000000001: mask is not a list of starts and lengths")
    change_json(pie / "mapping_file.json", lambda d: d["000000000001"].pop("editing_prompt"))
    refused("pie_bench", "000000000001 has no text 'editing_prompt'")
    for name in ("a", "b"):
        (index / "images" / f"{name}.png").unlink()
    refused("index", "none of the 2 pictures is there, the first is .*b.png")
    (index / "index.csv").write_bytes(b"img_path,source_prompt,target_prompt\n\xff,a,b\n")
    refused("index", "line 2: is not UTF-8 text")
    (index / "index.csv").write_text("img_path,source_prompt,target_prompt\na.png,a\n")
    refused("index", "line 2: needs 3 fields")
    change_json(magicbrush / "edit_turns.json", lambda d: d.append(d[0]))
    refused("magicbrush", "5 turns have 4 inputs; each needs its own")
    again = {"input": "243361-output3.png", "output": "243361-output3.png"}
    change_json(magicbrush / "edit_turns.json", lambda d: d.__setitem__(-1, again))
    refused("magicbrush", "243361_inde_3 stand there more than once")
    change_json(magicbrush / "edit_turns.json", lambda d: d.pop())
    change_json(magicbrush / "local_descriptions.json", lambda d: d["243361"].pop("243361-output2.png"))
    refused("magicbrush", "local_descriptions.json has no text '243361-output2.png'")
    (magicbrush / "edit_turns.json").write_text("[1]")
    refused("magicbrush", "1 is not a turn")
    (magicbrush / "edit_turns.json").unlink()
    refused("magicbrush", "edit_turns.json does not exist")


def test_tinyworlds_pairs_have_their_kind_and_the_rendered_target(tmp_path: Path) -> None:
    made = [sample_edit(0, i, kind) for i, kind in enumerate(("add", "background"))]
    write_pairs(tmp_path, made, instructions_of(made))
    first, second = load_dataset(f"tinyworld:{tmp_path}")
    assert (first.key, first.category, second.key, second.category) == ("000", "add", "001", "background")
    assert (second.source, second.target) == (made[1].source, made[1].target)
    assert [first.instruction, second.instruction] == instructions_of(made) != instructions_of(made[::-1])[::-1]
    assert np.array_equal(Image.open(second.truth), made[1].target_image)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub has of MagicBrush, saved in a folder."""
    datasets = need("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    rows = {"img_id": ["12", "12"], "turn_index": [1, 2], "source_img": pictures[:2], "mask_img": pictures[:2],
            "instruction": ["make it green", "make it blue"], "target_img": pictures[1:]}  # fmt: skip
    (tmp_path / "saved").mkdir()
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: dev\n    path: dev-*\n---\n"
    (tmp_path / "saved" / "README.md").write_text(card)
    features = datasets.Features({
        **{name: datasets.Image() for name in ("source_img", "mask_img", "target_img")}, "img_id": datasets.Value("string"),
        "turn_index": datasets.Value("int64"), "instruction": datasets.Value("string"),
    })  # fmt: skip
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "saved" / "dev-00000-of-00001.parquet")
    return tmp_path / "saved"


def test_magicbrush_of_the_hub(hub: Path) -> None:
    first, second = load_dataset(f"magicbrush_hub:{hub}@dev")
    assert (first.key, first.target, second.key, second.target) == ("12_1", "make it green", "12_inde_2", "make it blue")
    assert Image.open(second.image).getpixel((0, 0)) == (0, 128, 0)
    assert Image.open(second.truth).getpixel((0, 0)) == (0, 0, 255)
    assert load_dataset(f"magicbrush_hub:{hub}")[0].image == first.image
    with pytest.raises(UserError, match=r"saved@train cannot be loaded: .*train"):
        load_dataset(f"magicbrush_hub:{hub}@train")


def test_a_run_takes_a_dataset_and_names_results_by_its_keys(magicbrush: Path, tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    command = ["run", "--input", f"magicbrush:{magicbrush}", "--output", str(output), "--model", str(tiny_folder), "--quiet"]
    assert main([*command, "--method", "dds", "--steps", "1", "--limit", "2"]) == 0
    assert sorted(path.name for path in output.glob("*_seed0.png")) == ["12_1_seed0.png", "243361_1_seed0.png"]
    assert (
        json.loads((output / "12_1_seed0.json").read_text())["job"]["target"]
        == load_dataset(f"magicbrush:{magicbrush}")[0].target
    )


def test_a_key_that_cannot_name_a_file_is_refused() -> None:
    with pytest.raises(UserError, match="cannot name a file"):
        check([Pair("../up", Path(__file__), "", "a cat")], "here")
