"""Models that stay in memory between edits."""

import json
import shutil
from pathlib import Path

import pytest

from sdist.config.build import load_settings
from sdist.editors.loading import ModelCache

from ..conftest import read_json


@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "vae/config.json", "model_index.json"])
def test_a_folder_whose_configuration_changed_is_loaded_anew(tiny_folder: Path, tmp_path: Path, file: str) -> None:
    folder, cache = shutil.copytree(tiny_folder, tmp_path / "model"), ModelCache(kept=2)
    settings = load_settings("dds", model=str(folder))
    first = cache.get(settings).model
    assert cache.get(settings).model is first
    changed = read_json(folder / file) | {"note": "changed"}
    (folder / file).write_text(json.dumps(changed))
    assert cache.get(settings).model is not first
