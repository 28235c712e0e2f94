import numpy as np

from maskjax.report.views.video import FRAMES, columns, strip


def test_frames_lie_from_left_to_right():
    clips = np.linspace(0, 1, 3, dtype=np.float32)[None, :, None, None, None]
    clips = np.broadcast_to(clips, (2, 3, 4, 5, 1))
    pictures = columns({"original": clips}, None)["original"]
    assert pictures.shape == (2, 4, 5 + 1 + 5 + 1 + 5, 1)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(
        pictures[0, 0, :, 0], [0] * 5 + [255] + [128] * 5 + [255] + [255] * 5
    )


def test_long_clips_are_thinned_out_evenly():
    clips = np.broadcast_to(np.linspace(0, 1, 16)[None, :, None, None, None], (1, 16, 2, 2, 3))
    picture = strip(clips)
    assert picture.shape == (1, 2, FRAMES * 3 - 1, 3)
    assert picture[0, 0, 0, 0] == 0
    assert picture[0, 0, -1, 0] == 255
