"""The studio without a browser: a timeline of an edit, and its curves."""

from xml.etree import ElementTree

from sdist.studio.plot import curves
from sdist.studio.timeline import Timeline

from .samples import a_timeline


def test_a_timeline_keeps_the_stride_the_first_and_the_last() -> None:
    assert [frame.step for frame in a_timeline(13, 200).frames] == [0, 5, 10, 13]
    assert [frame.step for frame in a_timeline(3, 3).frames] == [0, 1, 2, 3]
    assert len(a_timeline(1000, 1000).frames) == 41
    timeline = a_timeline(13, 200)
    assert [timeline.at(step).step for step in (0, 4, 5, 12, 13, 99)] == [0, 0, 5, 10, 13, 13]
    assert (timeline.made, len(timeline.grad_std)) == (13, 13)


def test_strength_goes_on_a_line_through_source_and_edit() -> None:
    timeline = a_timeline(10, 10)
    assert float(timeline.latents(10, 0).mean()) == 0
    assert float(timeline.latents(10, 0.5).mean()) == 5
    assert float(timeline.latents(4, 1.5).mean()) == 6
    assert timeline.latents(10, 1) is timeline.frames[-1].latents


def test_curves_are_an_svg_with_a_bar_a_step() -> None:
    assert curves(Timeline()) == ""
    tree = ElementTree.fromstring(curves(a_timeline(6, 9)))
    assert len(tree.findall(".//rect")) == 6
    assert {path.get("class") for path in tree.iter("path")} == {"sd", "threshold"}
