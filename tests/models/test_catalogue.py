"""Models by name: which method edits with one where none is named."""

import pytest

from sdist.models.catalogue import default_method


@pytest.mark.parametrize(
    ("model", "settings", "method"),
    [
        (None, (), "localflow"),
        ("sd15", (), "lusd"),
        ("owner/name", (), "lusd"),
        ("tinyworld-instruct", (), "lime"),
        (None, ["steps=2", "model=sd15"], "lusd"),
        (None, {"model": "instruct-pix2pix"}, "instruct_pix2pix"),
        ("sd15", {"model": "tinyworld"}, "lusd"),  # an argument wins over settings
        ("no such model", (), "lusd"),  # which is refused when it is loaded
        (None, 5, "localflow"),  # so are settings that are none
    ],
)
def test_a_model_has_a_method_of_its_own(model, settings, method: str) -> None:
    assert default_method(model, settings) == method
