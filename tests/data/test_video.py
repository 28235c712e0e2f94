"""Tests of maskjax.data.video and maskjax.data.multi_scale."""

import pickle

import jax
import numpy as np
import pytest

from maskjax.data import Augment, MultiScaleCrop, Video
from maskjax.data.resample import crop_resize
from maskjax.errors import UserError

GREY = dict(channels=1, mean=(0.5,), std=(0.25,))


def numbered(frames, height=4, width=6, channels=1):
    """A video whose every pixel is the number of its frame."""
    frames = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(frames, (len(frames), height, width, channels)).copy()


def test_evaluation_takes_the_middle_and_training_a_random_start():
    video = Video((3, 4, 6), stride=2, **GREY)
    clip = video.read(numbered(11), None)
    assert clip.shape == video.shape(False) == (3, 4, 6, 1)
    np.testing.assert_array_equal(clip[:, 0, 0, 0], [3, 5, 7])
    starts = {
        int(video.read(numbered(11), np.random.default_rng(i))[0, 0, 0, 0]) for i in range(60)
    }
    assert starts == set(range(7))
    last = video.read(numbered(5), np.random.default_rng(0))
    np.testing.assert_array_equal(last[:, 0, 0, 0], [0, 2, 4])


def test_short_videos_are_refused_or_repeat_their_last_frame():
    with pytest.raises(UserError, match="has 4 frames, but 3 frames at a stride of 2 need 5"):
        Video((3, 4, 6), stride=2, **GREY).read(numbered(4), None)
    repeated = Video((3, 4, 6), stride=2, short="repeat", **GREY).read(numbered(4), None)
    np.testing.assert_array_equal(repeated[:, 0, 0, 0], [0, 2, 3])


def test_frames_are_fitted_and_a_grey_video_becomes_colour():
    video = Video((2, 4, 4), stride=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    clip = video.read(np.full((2, 8, 10, 1), 77, np.uint8), None)
    assert clip.shape == (2, 4, 4, 3)
    assert (clip == 77).all()
    larger = Video((2, 4, 4), stride=1, mean=(0.5,) * 3, std=(0.5,) * 3, decode_size=(6, 6))
    assert larger.shape(True) == (2, 6, 6, 3)
    assert larger.shape(False) == (2, 4, 4, 3)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(crop="resized", flip=True),
        Augment(crop="shift", shift=2, flip=True),
        MultiScaleCrop(flip=True),
    ],
)
def test_all_frames_of_a_clip_are_augmented_alike(augment):
    video = Video((3, 8, 8), channels=2, mean=(0, 0), std=(1, 1), stride=1, augment=augment)
    frame = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8, 2)).astype(np.uint8)
    clips = np.repeat(frame, 3, axis=1)
    out = np.asarray(jax.jit(video.on_device)(jax.random.key(0), clips))
    assert out.shape == (4, 3, 8, 8, 2)
    np.testing.assert_allclose(out[:, 1:], out[:, :1].repeat(2, axis=1), rtol=1e-6)
    assert np.abs(out - clips).max() > 10
    assert len({out[i].tobytes() for i in range(4)}) == 4


@pytest.mark.parametrize(
    "augment", [Augment("host", "resized", flip=True), MultiScaleCrop(place="host")]
)
def test_augmentation_on_the_host_treats_frames_alike(augment):
    video = Video((3, 8, 8), stride=1, augment=augment, **GREY)
    clip = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 1)).astype(np.uint8)
    out = video.read(clip.repeat(3, axis=0), np.random.default_rng(1))
    assert out.shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(out[1:], out[:1].repeat(2, axis=0))
    np.testing.assert_array_equal(video.on_device(None, out[None])[0], out)


def test_normalise_is_inverted_and_raw_is_flat():
    video = Video((2, 2, 2), channels=2, mean=(0.5, 0.25), std=(0.5, 0.125), stride=1)
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 2, 2)).astype(np.uint8)
    view = video.normalise(clips)
    assert view.shape == clips.shape
    np.testing.assert_allclose(view[0, 0, 0, 0, 1], (clips[0, 0, 0, 0, 1] / 255 - 0.25) / 0.125)
    np.testing.assert_allclose(video.denormalise(view), clips / 255, atol=1e-6)
    assert video.raw(clips).shape == (3, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(size=(4, 4)), "three positive integers"),
        (dict(stride=0), "stride of the video is 0"),
        (dict(short="loop"), "'refuse' or 'repeat'"),
        (dict(mean=(0.5, 0.5)), "one value per channel"),
    ],
)
def test_impossible_videos_are_refused(change, words):
    with pytest.raises(UserError, match=words):
        Video(**dict(size=(2, 4, 4), **GREY) | change)


def test_users_arrays_and_pickling():
    video = Video((2, 4, 4), **GREY)
    video.accept(np.zeros((1, 6, 4, 4, 1)))
    with pytest.raises(UserError, match=r"\[B, T, H, W, 1\]"):
        video.accept(np.zeros((2, 4, 4, 1)))
    assert pickle.loads(pickle.dumps(video)) == video


def test_boxes_of_the_multi_scale_crop():
    boxes = MultiScaleCrop().boxes((240, 320), (224, 224))
    assert boxes.shape == (10, 13, 4)  # pairs of scales that are neighbours at most
    np.testing.assert_array_equal(np.unique(boxes[:, :, 2]), [158, 180, 210, 240])
    assert (boxes[..., 0] + boxes[..., 2] <= 240).all()
    assert (boxes[..., 1] + boxes[..., 3] <= 320).all()
    np.testing.assert_array_equal(boxes[0, :5, :2], [(0, 0), (0, 80), (0, 0), (0, 80), (0, 40)])
    # 226 is near enough to 224 to be it: no resizing then.
    assert (MultiScaleCrop((1.0,)).boxes((226, 226), (224, 224))[..., 2:] == 224).all()


def test_multi_scale_crop_is_one_of_its_boxes():
    crop = MultiScaleCrop((1.0, 0.5))
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 12, 1)).astype(np.uint8)
    out = np.asarray(jax.jit(lambda k, x: crop.on_device(k, x, (4, 4)))(jax.random.key(0), images))
    boxes = crop.boxes((9, 12), (4, 4)).reshape(-1, 4)
    resize = jax.jit(jax.vmap(lambda image, box: crop_resize(image, box, (4, 4)), (None, 0)))
    chosen = set()
    for image, result in zip(images, out, strict=True):
        every = np.clip(np.asarray(resize(image, boxes)), 0, 255)
        distance = np.abs(every - result[None]).max(axis=(1, 2, 3))
        assert distance.min() < 1e-3
        chosen.add(int(distance.argmin()))
    assert len(chosen) > 2


@pytest.mark.parametrize("scales", [(), (0.5, 1.0), (1.5,)])
def test_scales_are_checked(scales):
    with pytest.raises(UserError, match="shares of the shorter side"):
        MultiScaleCrop(scales)
