"""Reading points and faces from the files in which shapes are published.

The headers are a few lines and the bodies arrays, so NumPy reads them; a library would add a
dependency for that (`plyfile` under the GPL, `trimesh` with more than is needed).
"""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

Shape = tuple[np.ndarray, np.ndarray]

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def read_shape(path: str | Path) -> Shape:
    """Reads a file by its extension, one of `EXTENSIONS`.

    Returns:
      vertices float32 [n, 3] or more columns, and triangles int64 [m, 3], m = 0 without faces.

    Raises:
      ValueError: the content is not what the extension says.
    """
    path = Path(path)
    vertices, triangles = _READERS[path.suffix.lower()](path.read_bytes())
    vertices = np.asarray(vertices, np.float32)
    if vertices.ndim != 2 or vertices.shape[1] < 3 or not len(vertices):
        raise ValueError(f"{path.name} has points of the shape {vertices.shape}")
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"{path.name} has faces of vertices that do not exist")
    return vertices, triangles


def sample_surface(
    vertices: np.ndarray, triangles: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws points uniformly from the surface of a mesh: float32 [count, 3]."""
    a, b, c = (vertices[triangles[:, i], :3].astype(np.float64) for i in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not areas.sum() > 0:
        raise ValueError("the faces of the mesh have no area")
    chosen = rng.choice(len(areas), count, p=areas / areas.sum())
    u, v = rng.random((2, count, 1))
    # A point of the parallelogram beyond the diagonal is mirrored into the triangle.
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = a[chosen], b[chosen], c[chosen]
    return (a + u * (b - a) + v * (c - a)).astype(np.float32)


def _read_off(content: bytes) -> Shape:
    """Object File Format; also with the counts in the first line ("OFF490 518 0"), as ModelNet."""
    words = re.sub(r"#.*", "", content.decode("ascii", "replace")).split()
    if not words or not words[0].upper().startswith("OFF"):
        raise ValueError("an .off file begins with OFF")
    words = ([words[0][3:]] if len(words[0]) > 3 else []) + words[1:]
    n, m = int(words[0]), int(words[1])
    vertices = np.asarray(words[3 : 3 + 3 * n], np.float32).reshape(n, 3)
    faces, place = [], 3 + 3 * n
    whole = words[place : place + 4 * m]
    if len(whole) == 4 * m and all(word == "3" for word in whole[::4]):
        return vertices, np.asarray(whole, np.int64).reshape(m, 4)[:, 1:]
    # Colours may follow the vertices of a face on its line, so lines would have to be kept apart;
    # published shapes have none.
    for _ in range(m):
        corners = int(words[place])
        faces.append([int(word) for word in words[place + 1 : place + 1 + corners]])
        place += 1 + corners
    return vertices, _triangles(faces)


def _read_ply(content: bytes) -> Shape:
    """Polygon File Format: ascii, and binary of either byte order."""
    end = re.search(rb"end_header\r?\n", content)
    if not content.startswith(b"ply") or not end:
        raise ValueError("a .ply file begins with ply and has a header")
    form, elements = "", []
    for line in content[: end.start()].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    body = content[end.end() :]
    if form == "ascii":
        columns = _ply_ascii(body.split(), elements)
    elif form in ("binary_little_endian", "binary_big_endian"):
        columns = _ply_binary(body, elements, "<" if "little" in form else ">")
    else:
        raise ValueError(f"the format '{form}' of a .ply file is not known")
    vertices = columns["vertex"]
    faces = columns.get("face", {})
    lists = faces.get("vertex_indices", faces.get("vertex_index", ()))
    return np.stack([vertices[axis] for axis in "xyz"], axis=1), _triangles(lists)


def _ply_ascii(words: list[bytes], elements: list) -> dict[str, dict]:
    columns, place = {}, 0
    for element, count, properties in elements:
        values = {p[-1]: [] for p in properties}
        for _ in range(count):
            for p in properties:
                size = 1
                if p[0] == "list":
                    size, place = int(words[place]), place + 1
                part = [float(word) for word in words[place : place + size]]
                if len(part) < size:
                    raise ValueError("the file ends early")
                values[p[-1]].append([int(x) for x in part] if p[0] == "list" else part[0])
                place += size
        columns[element] = values
    return columns


def _ply_binary(body: bytes, elements: list, order: str) -> dict[str, dict]:
    columns, place = {}, 0
    for element, count, properties in elements:
        if all(p[0] != "list" for p in properties):
            dtype = np.dtype([(p[-1], order + _PLY_TYPES[p[0]]) for p in properties])
            table: np.ndarray = np.frombuffer(body, dtype, count, place)
            columns[element] = {name: table[name] for name in dtype.names or ()}
            place += table.nbytes
            continue
        table = _ply_triangles(body, count, properties, order, place)
        if table is not None:
            columns[element] = {properties[0][-1]: table["corners"]}
            place += table.nbytes
            continue
        values = {p[-1]: [] for p in properties}
        for _ in range(count):
            for p in properties:
                size = 1
                if p[0] == "list":
                    head = np.frombuffer(body, order + _PLY_TYPES[p[1]], 1, place)
                    size, place = int(head[0]), place + head.nbytes
                part = np.frombuffer(body, order + _PLY_TYPES[p[-2]], size, place)
                place += part.nbytes
                values[p[-1]].append(part.tolist() if p[0] == "list" else part[0])
        columns[element] = values
    return columns


def _ply_triangles(
    body: bytes, count: int, properties: list, order: str, place: int
) -> np.ndarray | None:
    """Reads lists of three at once; None if there are other properties or lengths."""
    if len(properties) != 1:
        return None
    _, length, corner, _ = properties[0]
    dtype = np.dtype(
        [("length", order + _PLY_TYPES[length]), ("corners", order + _PLY_TYPES[corner], (3,))]
    )
    if len(body) - place < count * dtype.itemsize:
        return None
    table: np.ndarray = np.frombuffer(body, dtype, count, place)
    return table if (table["length"] == 3).all() else None


def _read_text(content: bytes) -> Shape:
    """Lines of numbers, apart by spaces or commas; x, y, z first."""
    text = content.decode("ascii", "replace").replace(",", " ")
    return np.loadtxt(io.StringIO(text), np.float32, ndmin=2), np.zeros((0, 3), np.int64)


def _read_npy(content: bytes) -> Shape:
    return np.load(io.BytesIO(content), allow_pickle=False), np.zeros((0, 3), np.int64)


def _triangles(faces: list[list[int]] | np.ndarray) -> np.ndarray:
    """Cuts polygons into the triangles at their first corner: int64 [m, 3]."""
    if isinstance(faces, np.ndarray):
        return faces.astype(np.int64).reshape(-1, 3)
    fans = [(face[0], face[i], face[i + 1]) for face in faces for i in range(1, len(face) - 1)]
    return np.asarray(fans, np.int64).reshape(-1, 3)


_READERS: dict[str, Callable[[bytes], Shape]] = {
    ".ply": _read_ply,
    ".off": _read_off,
    ".xyz": _read_text,
    ".txt": _read_text,
    ".npy": _read_npy,
}
EXTENSIONS = tuple(_READERS)
