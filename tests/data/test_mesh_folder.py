"""Clouds and meshes from files and folders."""

import pickle

import numpy as np
import pytest

from maskjax.data.mesh_files import read_shape, sample_surface
from maskjax.data.mesh_folder import MeshFolder
from maskjax.errors import UserError

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
FANS = [[0, 1, 2], [0, 2, 3]]

OFF = "OFF\n# a square\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"
OFF_TRIANGLES = "OFF4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"
PLY_HEADER = (
    "ply\nformat {}\ncomment made by hand\nelement vertex 4\nproperty float x\n"
    "property float y\nproperty float z\nproperty uchar red\nelement face {}\n"
    "property list uchar int vertex_indices\nend_header\n"
)
PLY = PLY_HEADER.format("ascii 1.0", 1) + "0 0 0 9\n1 0 0 9\n1 1 0 9\n0 1 0 9\n4 0 1 2 3\n"


def binary_ply(order, faces):
    name = {"<": "binary_little_endian 1.0", ">": "binary_big_endian 1.0"}[order]
    body = b"".join(
        corner.astype(order + "f4").tobytes() + b"\x09" for corner in CORNERS
    ) + b"".join(bytes([len(f)]) + np.asarray(f, order + "i4").tobytes() for f in faces)
    return PLY_HEADER.format(name, len(faces)).encode() + body


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.off", OFF.encode()),
        ("b.off", OFF_TRIANGLES.encode()),
        ("c.ply", PLY.encode()),
        ("d.ply", binary_ply("<", [[0, 1, 2, 3]])),
        ("e.ply", binary_ply(">", [[0, 1, 2, 3]])),
        ("f.ply", binary_ply("<", FANS)),
        ("g.PLY", binary_ply(">", FANS)),
    ],
)
def test_meshes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    vertices, triangles = read_shape(tmp_path / name)
    np.testing.assert_array_equal(vertices, CORNERS)
    assert triangles.tolist() == FANS


def test_clouds(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3 255\n4 5 6 0\n")
    (tmp_path / "b.txt").write_text("1,2,3,255\n4,5,6,0\n")
    np.save(tmp_path / "c.npy", np.array([[1.0, 2, 3, 255], [4, 5, 6, 0]]))
    for name in ("a.xyz", "b.txt", "c.npy"):
        points, triangles = read_shape(tmp_path / name)
        assert points.tolist() == [[1, 2, 3, 255], [4, 5, 6, 0]]
        assert not len(triangles)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.off", "nothing"),
        ("b.off", "OFF\n2 1 0\n0 0 0\n1 1 1\n3 0 1 2\n"),
        ("c.ply", "ply\nformat morse 1.0\nend_header\n"),
        ("d.ply", "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n"),
        ("e.npy", "text"),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(Exception) as error:
        read_shape(tmp_path / name)
    assert not isinstance(error.value, UserError)


def test_points_of_a_surface_are_uniform():
    # Two triangles of areas 1/2 and 2.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [7, 0, 0], [5, 2, 0]])
    points = sample_surface(
        vertices, np.array([[0, 1, 2], [3, 4, 5]]), 20_000, np.random.default_rng(0)
    )
    large = points[points[:, 0] >= 5] - [5, 0, 0]
    assert abs(len(large) / 20_000 - 0.8) < 0.01
    assert (large[:, :2].sum(axis=1) <= 2 + 1e-5).all() and (large[:, :2] >= 0).all()
    np.testing.assert_allclose(large.mean(axis=0), [2 / 3, 2 / 3, 0], atol=0.02)


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(OFF_TRIANGLES)


@pytest.mark.parametrize("form", ["{label}/{split}/{name}", "{split}/{label}/{name}"])
def test_splits_and_classes(tmp_path, form):
    for i, (split, label) in enumerate(
        [("train", "chair"), ("train", "bed"), ("test", "desk"), ("test", "bed")]
    ):
        write(tmp_path, form.format(split=split, label=label, name=f"{i}.off"))
    source = MeshFolder(str(tmp_path), samples=50)
    train, test = source.open("train"), pickle.loads(pickle.dumps(source.open("test")))
    assert train.label_names == test.label_names == ("bed", "chair", "desk")
    assert sorted(train[i]["label"] for i in range(2)) == [0, 1]
    assert sorted(test[i]["label"] for i in range(2)) == [0, 2]
    assert len(source.open("all")) == 4
    points = train[0]["points"]
    assert points.shape == (50, 3)
    np.testing.assert_array_equal(points, train[0]["points"])
    with pytest.raises(UserError, match="did you mean 'train'"):
        source.open("tran")


def test_a_folder_without_classes(tmp_path):
    write(tmp_path, "a.off", "b.off")
    records = MeshFolder(str(tmp_path)).open("all")
    assert records.num_classes is None and "label" not in records[0]


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        MeshFolder(str(tmp_path / "absent")).open("all")
    with pytest.raises(UserError, match=r"holds no \.ply"):
        MeshFolder(str(tmp_path)).open("all")
    write(tmp_path, "a.off", "chair/b.off")
    with pytest.raises(UserError, match="lies in no folder of a class"):
        MeshFolder(str(tmp_path)).open("all")
    with pytest.raises(UserError, match="samples is 0"):
        MeshFolder("x", samples=0)
