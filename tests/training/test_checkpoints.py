"""Nothing that was saved is lost, and nothing damaged is restored."""

import json
import random
import resource
import shutil
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from maskjax.errors import UserError
from maskjax.training.checkpoints import Checkpoints


def state_of(step):
    key = jax.random.key(step)
    return {
        "step": jnp.int32(step),
        "params": {"kernel": jax.random.normal(key, (64, 32)), "bias": jnp.full(32, 1.0 * step)},
    }


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def equal(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def snapshot(folder):
    """{name in the folder: content} of all files."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The files of a directory with the checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("pristine") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, state_of(step))
    checkpoints.close()
    return snapshot(folder)


@pytest.fixture
def folder(pristine, tmp_path):
    """A fresh copy of it."""
    folder = tmp_path / "checkpoints"
    for name, content in pristine.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def restore(folder, **options):
    """Returns (step, state, what was said)."""
    said = []
    checkpoints = Checkpoints(folder, say=said.append, **options)
    try:
        return *checkpoints.restore_latest(abstract(state_of(0))), said
    finally:
        checkpoints.close()


def test_newest_is_restored(folder):
    step, state, said = restore(folder)
    assert (step, said) == (2, [])
    assert equal(state, state_of(2))


def test_every_checkpoint_is_committed_with_a_manifest_of_its_arrays(folder):
    for step in ("1", "2"):
        files = {name for name in snapshot(folder / step) if "/" in name}
        assert set(json.loads((folder / step / "manifest.json").read_text())) == files
        assert len(files) >= 5


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"truncated": truncate, "empty": empty, "missing": lambda p: p.unlink(), "flipped": flip}


def kinds(pristine):
    """One file of each kind in checkpoint 2, by what it is called without its hash."""
    return {
        "/".join("HASH" if len(part) == 32 else part for part in name.split("/")[1:]): name
        for name in pristine
        if name.startswith("2/")
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_falls_back_to_the_one_before(pristine, tmp_path, damage):
    expected = {k: v for k, v in pristine.items() if k.startswith("2/")}
    for kind, name in kinds(pristine).items():
        if kind == "manifest.json" and damage == "missing":
            continue  # see below
        workdir = tmp_path / kind.replace("/", "_")
        for file, content in pristine.items():
            path = workdir / "checkpoints" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        victim = workdir / "checkpoints" / name
        if victim.read_bytes() == b"":
            continue
        DAMAGES[damage](victim)
        step, state, said = restore(workdir / "checkpoints")
        if "/" not in kind and kind != "manifest.json":
            # Orbax's notes on the commit: no part of the state. Either answer is sound.
            assert equal(state, state_of(step))
            continue
        assert step == 1, kind
        assert equal(state, state_of(1)), kind
        assert len(said) == 1, kind
        assert "\n" not in said[0], kind
        assert said[0].startswith("Checkpoint 2 "), kind
        assert "broken/" in said[0], kind
        # Nothing is deleted: all other files are there, as they were.
        kept = {f"2/{k}": v for k, v in snapshot(workdir / "broken" / "2").items()}
        assert {k: v for k, v in kept.items() if k != name} == {
            k: v for k, v in expected.items() if k != name
        }, kind
        assert not (workdir / "checkpoints" / "2").exists(), kind


def test_any_flipped_bit_of_the_manifest_is_harmless(folder):
    """It may make the manifest unreadable in many ways; the answer is always the one before."""
    manifest = folder / "2" / "manifest.json"
    content = manifest.read_bytes()
    checkpoints = Checkpoints(folder, read_only=True)
    draws = random.Random(0)
    assert checkpoints._damage(2) is None
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        manifest.write_bytes(damaged)
        sound = damaged.split() == content.split()  # white space for white space
        assert sound or checkpoints._damage(2), damaged
    for text in ("[]", "3", '{"default/x": 3}', '{"default/x": null}', "null"):
        manifest.write_text(text)
        assert checkpoints._damage(2)
    checkpoints.close()


def test_read_only_changes_nothing(folder):
    flip(max((folder / "2" / "default").rglob("*.ocdbt")))
    before = snapshot(folder.parent)
    step, state, said = restore(folder, read_only=True)
    assert (step, len(said)) == (1, 1)
    assert equal(state, state_of(1))
    assert snapshot(folder.parent) == before


def test_without_a_manifest(folder):
    (folder / "2" / "manifest.json").unlink()
    step, state, said = restore(folder)
    assert (step, said) == (2, [])
    assert equal(state, state_of(2))


def test_without_a_manifest_missing_data_is_noticed(folder):
    """As when a deletion of an old checkpoint was interrupted."""
    (folder / "2" / "manifest.json").unlink()
    for path in (folder / "2" / "default").rglob("d/*"):
        path.unlink()
    step, _, said = restore(folder)
    assert (step, len(said)) == (1, 1)


def test_temporary_directories_are_ignored(folder):
    for name in ("3.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-1760000000000000"):
        (folder / name / "default").mkdir(parents=True)
        (folder / name / "default" / "manifest.ocdbt").write_bytes(b"half")
    step, state, said = restore(folder)
    assert (step, said) == (2, [])
    assert equal(state, state_of(2))
    checkpoints = Checkpoints(folder)
    checkpoints.save(3, state_of(3), wait=True)
    checkpoints.close()
    assert restore(folder)[0] == 3


def test_a_directory_that_only_looks_like_a_checkpoint(folder):
    (folder / "7").mkdir()
    step, _, said = restore(folder)
    assert (step, len(said)) == (2, 1)
    assert (folder.parent / "broken" / "7").is_dir()


def test_all_damaged(folder):
    for step in ("1", "2"):
        truncate(folder / step / "default" / "manifest.ocdbt")
    with pytest.raises(UserError, match="No checkpoint in .* can be read"):
        restore(folder)
    assert {p.name for p in (folder.parent / "broken").iterdir()} == {"1", "2"}


def test_damaged_twice_at_the_same_step(folder):
    for _ in range(2):
        flip(max((folder / "2" / "default").rglob("*.ocdbt")))
        assert restore(folder)[0] == 1
        checkpoints = Checkpoints(folder)
        checkpoints.save(2, state_of(2), wait=True)
        checkpoints.close()
    assert {p.name for p in (folder.parent / "broken").iterdir()} == {"2", "2_"}


def test_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore_latest(abstract(state_of(0))) is None
    checkpoints.close()


@pytest.mark.parametrize("change", ["shape", "absent", "more"])
def test_another_model(folder, change):
    wanted = state_of(0)
    if change == "shape":
        wanted["params"]["kernel"] = jnp.zeros((64, 16))
    elif change == "absent":
        del wanted["params"]["kernel"]
    else:
        wanted["params"]["second_kernel"] = jnp.zeros((2, 2))
    before = snapshot(folder.parent)
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match=r"another model .*params/(second_)?kernel is"):
        checkpoints.restore_latest(abstract(wanted))
    checkpoints.close()
    assert snapshot(folder.parent) == before


@pytest.mark.parametrize("asynchronous", [True, False])
def test_retention(tmp_path, asynchronous):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=4, asynchronous=asynchronous)
    for step in range(1, 12):
        checkpoints.save(step, state_of(step))
        if not asynchronous:
            assert (tmp_path / str(step) / "manifest.json").exists()
    checkpoints.wait()
    assert checkpoints.steps() == [4, 8, 10, 11]
    checkpoints.close()
    for step in (4, 8, 10):
        checkpoints = Checkpoints(tmp_path, read_only=True)
        found, state = checkpoints.restore_latest(abstract(state_of(0)), step=step)
        assert found == step
        assert equal(state, state_of(step))
        checkpoints.close()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_one_that_cannot_be_removed_stays(tmp_path, asynchronous, monkeypatch):
    """The training goes on, and later ones are removed as ever."""
    kind, said = type(epath.Path(tmp_path)), []
    remove = kind.rmtree

    def remove_others(path, *args, **kwargs):
        if path.name == "1":
            raise OSError(5, "Input/output error")
        return remove(path, *args, **kwargs)

    monkeypatch.setattr(kind, "rmtree", remove_others)
    checkpoints = Checkpoints(tmp_path, keep_last=1, asynchronous=asynchronous, say=said.append)
    for step in range(1, 6):
        # At the last step of a run, where a save that fails is an error, it is none.
        checkpoints.save(step, state_of(step), wait=step == 2)
    checkpoints.close()
    (sentence,) = said
    assert sentence.startswith("An old checkpoint could not be removed (OSError: ")
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert {1, 5} <= set(checkpoints.steps()) <= {1, 2, 5}
    found, state = checkpoints.restore_latest(abstract(state_of(0)))
    assert found == 5 and equal(state, state_of(5))
    checkpoints.close()


@pytest.fixture
def slow(monkeypatch):
    """Every save sets `written` and waits for `commit`."""
    write, events = Checkpoints._write_manifests, SimpleNamespace()
    events.written, events.commit = threading.Event(), threading.Event()

    def write_slowly(self):
        events.written.set()
        assert events.commit.wait(30)
        write(self)

    monkeypatch.setattr(Checkpoints, "_write_manifests", write_slowly)
    return events


def test_a_slow_save_does_not_hold_up_the_training(tmp_path, slow):
    """Steps go on while one is written; the next save waits for it, and both are sound."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state_of(1))  # returns
    for _ in range(5):
        checkpoints.check()  # as after every step
    assert not (tmp_path / "1").exists()
    timer = threading.Timer(0.5, slow.commit.set)
    timer.start()
    checkpoints.save(2, state_of(2))
    assert slow.commit.is_set() and (tmp_path / "1").exists()
    checkpoints.close()
    timer.join()
    for step in (1, 2):
        checkpoints = Checkpoints(tmp_path, read_only=True)
        assert equal(
            checkpoints.restore_latest(abstract(state_of(0)), step=step)[1], state_of(step)
        )
        checkpoints.close()


def test_the_directory_disappears_during_a_save(tmp_path, slow):
    folder, said = tmp_path / "checkpoints", []
    checkpoints = Checkpoints(folder, say=said.append)
    checkpoints.save(1, state_of(1))
    assert slow.written.wait(30)
    shutil.rmtree(folder)
    slow.commit.set()
    checkpoints.wait()
    (sentence,) = said
    assert sentence.startswith("A checkpoint could not be saved (FileNotFoundError: ")
    checkpoints.save(2, state_of(2), wait=True)
    checkpoints.close()
    checkpoints = Checkpoints(folder, read_only=True)
    assert checkpoints.steps() == [2]
    assert equal(checkpoints.restore_latest(abstract(state_of(0)))[1], state_of(2))
    checkpoints.close()


def test_a_step_is_saved_once(folder):
    before = snapshot(folder)
    checkpoints = Checkpoints(folder)
    checkpoints.save(2, state_of(5), wait=True)
    checkpoints.close()
    assert snapshot(folder) == before


def test_donation_after_an_asynchronous_save(tmp_path):
    """What is saved is the state at the call, although its buffers are overwritten meanwhile."""

    def update(state):
        return jax.tree.map(lambda x: x * 1.5 + 1, state)

    update = jax.jit(update, donate_argnums=0)
    key = jax.random.key(0)
    state = {str(n): jax.random.normal(key, (n, 1000)) for n in (1, 10, 300, 1000)}
    wanted = abstract(state)
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    for step in range(1, 101):
        # Of a copy: a NumPy view of the state itself would keep its memory from being donated.
        before = jax.tree.map(lambda x: np.asarray(x.copy()), state)
        checkpoints.save(step, state)
        for _ in range(4):
            # The first donation may be refused, as long as Orbax reads that memory; the later ones
            # do overwrite what they are given.
            donated, state = state, update(state)
        assert donated["1000"].is_deleted()
        checkpoints.wait()
        found, restored = checkpoints.restore_latest(wanted)
        assert found == step
        assert equal(restored, before)
        assert not equal(restored, state)
        state = jax.tree.map(lambda x: x / 8, state)  # stay finite
    checkpoints.close()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_that_fails_does_not_end_the_training(tmp_path, asynchronous):
    """Files may not grow beyond a limit for a while, as if the disk were full."""
    said = []
    small, large = (
        {"w": jax.random.normal(jax.random.key(0), (n, 1000))}
        for n in (1, 1000)  # 4 KB, 4 MB
    )
    checkpoints = Checkpoints(tmp_path, asynchronous=asynchronous, say=said.append)
    checkpoints.save(1, small, wait=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        checkpoints.save(2, large)
        until = time.monotonic() + 30
        while not said and time.monotonic() < until:
            checkpoints.check()
            time.sleep(0.01)
        assert len(said) == 1
        assert "could not be saved (" in said[0] and "The training goes on" in said[0]
        with pytest.raises(UserError, match=r"Step 3 could not be saved .* checkpoint is 1\."):
            checkpoints.save(3, large, wait=True)
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        checkpoints.save(4, small)
        checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoints.save(5, large)
    checkpoints.close()
    assert len(said) == 1
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [4, 5]
    found, state = checkpoints.restore_latest(abstract(large))
    assert found == 5 and np.array_equal(state["w"], large["w"])
    checkpoints.close()
