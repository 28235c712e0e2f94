"""Tests of maskjax.data.video_folder."""

import sys

import numpy as np
import pytest
from PIL import Image

from maskjax.data import VideoFolder
from maskjax.errors import UserError


def clip(seed, frames=3):
    return np.random.default_rng(seed).integers(0, 256, (frames, 4, 6, 3)).astype(np.uint8)


def write_frames(folder, video):
    folder.mkdir(parents=True)
    for i, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{i:03}.png")


@pytest.fixture
def videos(tmp_path):
    write_frames(tmp_path / "train" / "jump" / "a", clip(0, 11))
    write_frames(tmp_path / "train" / "run" / "deep" / "b", clip(1))
    np.save(tmp_path / "train" / "run" / "c.npy", clip(2))
    write_frames(tmp_path / "test" / "run" / "d", clip(3))
    np.savez(tmp_path / "test" / "run" / "e.npz", video=clip(4)[..., 0])
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def test_frames_arrays_and_labels(videos):
    records = VideoFolder(str(videos)).open("train")
    assert records.videos == ("train/jump/a", "train/run/c.npy", "train/run/deep/b")
    assert records.label_names == ("jump", "run")
    assert records.num_classes == 2
    for i, (seed, frames, label) in enumerate([(0, 11, 0), (2, 3, 1), (1, 3, 1)]):
        np.testing.assert_array_equal(records[i]["video"], clip(seed, frames))
        assert records[i]["label"] == label
    test = VideoFolder(str(videos)).open("test")
    assert [test[i]["label"] for i in range(2)] == [1, 1]  # numbered as in training
    np.testing.assert_array_equal(test[1]["video"], clip(4)[..., :1])
    assert len(VideoFolder(str(videos)).open("all")) == 5


def test_videos_directly_in_a_split_have_no_labels(tmp_path):
    write_frames(tmp_path / "a", clip(0))
    np.save(tmp_path / "b.npy", clip(1))
    records = VideoFolder(str(tmp_path)).open("all")
    assert records.labels is records.num_classes is None
    assert [set(records[i]) for i in range(2)] == [{"video"}] * 2


def test_unreadable_records_are_no_configuration_errors(tmp_path):
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        VideoFolder(str(tmp_path)).open("all")[0]


def test_video_files_need_an_extra(tmp_path, monkeypatch):
    (tmp_path / "x.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install maskjax\[video\]"):
        VideoFolder(str(tmp_path)).open("all")


@pytest.mark.parametrize(
    ("path", "split", "words"),
    [
        ("nowhere", "all", "There is no folder"),
        (".", "trian", "did you mean 'train'"),
        ("empty", "all", "holds no videos"),
    ],
)
def test_mistakes(videos, path, split, words):
    (videos / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        VideoFolder(str(videos / path)).open(split)
