import numpy as np
import pytest
from PIL import Image

from sdist.metrics.base import Encoders
from sdist.metrics.clip_edited import ClipEdited
from sdist.metrics.clip_whole import ClipWhole
from sdist.metrics.encoders.clip import Clip

from .samples import BOTH, sample


def test_only_the_mask_is_seen(clip: Clip) -> None:
    one = sample(0)
    pixels = np.array(one.result)
    pixels[~one.mask] = 7
    other = sample(0, result=Image.fromarray(pixels))
    assert ClipEdited()([one], Encoders(clip), "clean") == ClipEdited()([other], Encoders(clip), "clean")


@BOTH
def test_a_mask_of_everything_is_the_whole(clip: Clip, profile: str) -> None:
    whole = sample(0, mask=np.ones_like(sample(0).mask))
    assert ClipEdited()([whole], Encoders(clip), profile) == pytest.approx(ClipWhole()([whole], Encoders(clip), profile))
