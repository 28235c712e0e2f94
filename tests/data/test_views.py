"""Several views of an example in evaluation: clips and crops of a video, one figure for all."""

import dataclasses

import jax
import numpy as np
import pytest

from maskjax.data import Augment, Erase, Image, RandAugment, Video, eval_batches, view_count
from maskjax.data.views import read_view
from maskjax.errors import UserError
from maskjax.evaluation.examples import Rows, collect
from maskjax.evaluation.features import extract, raw_features, selector

GREY = dict(channels=1, mean=(0.5,), std=(0.25,))


def numbered(frames, height=4, width=9):
    """Pixels are 16 times the number of the frame plus the column."""
    values = 16 * np.arange(frames)[:, None, None, None] + np.arange(width)[None, None, :, None]
    return np.broadcast_to(values, (frames, height, width, 1)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Videos:
    """Records of 1 or more frames; record 2 cannot be read."""

    count: int = 7
    num_classes: int = 3

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i == 2:
            raise OSError
        return {
            "video": np.full((5, 4, 9, 1), 10 * i, np.uint8) + numbered(5) // 16,
            "label": i % 3,
        }


def test_clips_and_crops_lie_at_equal_distances():
    video = Video((2, 4, 4), stride=2, eval_clips=3, eval_crops=2, **GREY)
    assert video.views == view_count({"video": video, "image": Image((4, 4))}) == 6
    views = [video.read_view(numbered(9), view)[:, 0, 0, 0] for view in range(6)]
    starts, columns = zip(*[divmod(int(view[0]), 16) for view in views], strict=True)
    assert starts == (0, 0, 2, 2, 6, 6)  # (9 - 3) frames, in whole strides: 0, 1.5 and 3
    assert columns == (0, 5) * 3
    assert all(view[1] - view[0] == 32 for view in views)


def test_crops_of_resized_frames_and_what_one_view_sees():
    video = Video((1, 2, 2), eval_crops=3, **GREY)
    wide = np.repeat(np.arange(12, dtype=np.uint8)[None, None, :, None], 4, axis=1)
    columns = [video.read_view(wide, view)[0, 0, :, 0].mean() for view in range(3)]
    np.testing.assert_allclose(columns, [1.5, 5.5, 9.5], atol=0.6)
    high = wide.transpose(0, 2, 1, 3)
    rows = [video.read_view(high, view)[0, :, 0, 0].mean() for view in range(3)]
    np.testing.assert_allclose(rows, columns)
    np.testing.assert_array_equal(video.read(wide, None), video.read_view(wide, 1))
    one = dataclasses.replace(video, eval_crops=1)
    np.testing.assert_array_equal(one.read_view(wide, 0), video.read(wide, None))
    assert read_view(one, wide, 5).tolist() == video.read(wide, None).tolist()  # sees one alone


def test_segments_cover_the_whole_video():
    """Two clips have each quarter of a video once at its start and once at its half (SSv2)."""
    video = Video((4, 4, 9), sampling="segments", eval_clips=2, **GREY)
    frames = [video.read_view(numbered(15), view)[:, 0, 0, 0] // 16 for view in range(2)]
    assert [clip.tolist() for clip in frames] == [[0, 3, 7, 11], [1, 5, 9, 13]]
    assert (video.read(numbered(15), None)[:, 0, 0, 0] // 16).tolist() == [1, 5, 9, 13]
    drawn = [video.read(numbered(8), np.random.default_rng(i))[:, 0, 0, 0] // 16 for i in range(40)]
    assert {frame for clip in drawn for frame in clip.tolist()} == set(range(8))
    assert all((clip // 2 == np.arange(4)).all() for clip in drawn)
    with pytest.raises(UserError, match="has 3 frames, but 4 frames in segments need 4"):
        video.read(numbered(3), None)
    short = dataclasses.replace(video, short="repeat")
    assert (short.read_view(numbered(2), 0)[:, 0, 0, 0] // 16).tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="sampling must be 'stride' or 'segments', not 'even'"):
        Video(sampling="even")


def test_short_videos_give_the_same_clip_several_times():
    video = Video((3, 4, 9), stride=2, short="repeat", eval_clips=4, **GREY)
    clips = [video.read_view(numbered(4), view)[:, 0, 0, 0] // 16 for view in range(4)]
    assert all(clip.tolist() == [0, 2, 3] for clip in clips)
    with pytest.raises(UserError, match="has 4 frames"):
        dataclasses.replace(video, short="refuse").read_view(numbered(4), 0)


@pytest.mark.parametrize("batch_size", [4, 5, 64])
@pytest.mark.parametrize("max_examples", [None, 3])
def test_every_example_counts_once_whatever_the_batch(batch_size, max_examples):
    """Views go on in the next batch, padding and unreadable records are left out."""
    inputs = {"video": Video((1, 4, 4), stride=1, eval_clips=3, eval_crops=2, **GREY)}
    records = Videos()

    def batches():
        with eval_batches(
            records,
            inputs,
            batch_size=batch_size,
            max_examples=max_examples,
            threads=2,
            views=view_count(inputs),
        ) as found:
            yield from found

    used = [0, 2, 4] if max_examples else range(7)
    used = [i for i in used if i != 2]
    # Frames 0, 2 and 4 have the means 10 i + 0, 2 and 4.
    expected = [10 * i + 2.0 for i in used]
    encode = lambda variables, batch: {"mean": batch["video"].mean(axis=(1, 2, 3))}  # noqa: E731
    found = extract(selector(encode, ["mean"]), None, batches(), jax.device_put)["mean"]
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, [i % 3 for i in used])
    raw = raw_features(batches(), inputs, {"mean": None})["mean"]
    np.testing.assert_allclose(raw.values.mean(axis=1) * 255, expected, rtol=1e-6)
    assert sum(len(batch["_mask"]) for batch in batches()) >= 6 * len(used)


def test_rows_without_numbers_and_single_views_stay_as_they_are():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 0, 3)]
    for index in (lambda i, n: None, lambda i, n: 10 * i + np.arange(n)):
        batches = [
            Rows({"x": v}, np.full(len(v), i), index(i, len(v))) for i, v in enumerate(values)
        ]
        found, labels = collect(batches)
        np.testing.assert_array_equal(found["x"], np.concatenate(values))
        np.testing.assert_array_equal(labels, [0] * 4 + [2] * 3)
    assert collect([]) == ({}, None)


def test_inputs_have_to_agree_on_the_number_of_views():
    clips = {n: Video((2, 4, 4), eval_clips=n, **GREY) for n in (1, 2, 3)}
    assert view_count({}) == view_count({"a": clips[1]}) == 1
    assert view_count({"a": clips[1], "b": clips[2], "c": clips[2]}) == 2
    with pytest.raises(UserError, match="a 3, b 2"):
        view_count({"a": clips[3], "b": clips[2]})
    with pytest.raises(UserError, match="eval_clips"):
        Video(eval_clips=0)


def test_frames_are_distorted_alike_and_erased_at_one_place():
    augment = Augment(place="host", crop="resized")
    video = Video(
        (3, 16, 16),
        stride=1,
        augment=augment,
        rand_augment=RandAugment(probability=1.0),
        erase=Erase(probability=1.0),
        **GREY,
    )
    still = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 1)).astype(np.uint8)
    still = np.repeat(still, 3, axis=0)
    clips = [video.read(still, np.random.default_rng(seed)) for seed in range(8)]
    for clip in clips:
        np.testing.assert_array_equal(clip, np.repeat(clip[:1], 3, axis=0))
    plain = dataclasses.replace(video, rand_augment=None)
    without = [plain.read(still, np.random.default_rng(seed)) for seed in range(8)]
    assert sum((a != b).any() for a, b in zip(clips, without, strict=True)) > 4
    batch = jax.numpy.asarray(np.stack(clips))
    seen = np.asarray(jax.jit(video.on_device)(jax.random.key(0), batch))
    erased = (seen != np.asarray(batch)).any(axis=-1)
    assert erased.any(axis=(1, 2, 3)).all() and erased.mean() < 0.4
    np.testing.assert_array_equal(erased, np.repeat(erased[:, :1], 3, axis=1))
    noise = (seen / 255 - 0.5)[erased] / 0.25
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
    assert (seen[:, 0] != seen[:, 1]).any()  # new noise in each frame
    with pytest.raises(UserError, match="on the host"):
        Video((3, 16, 16), rand_augment=RandAugment(), **GREY)
