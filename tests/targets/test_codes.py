"""Codes as targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.targets import KMeansCodes, RandomCodes
from maskjax.targets.codes import cepstra_of_tokens, nearest_code
from maskjax.tokens import TokenGrid, patchify
from maskjax.tokens.spectrogram import cepstrum, mfcc, with_deltas

GRID = TokenGrid((6,), (2,), 16)  # six tokens of two frames of 16 bands


def save(path, centroids, features="mfcc"):
    np.savez(path, centroids=np.asarray(centroids, np.float32), features=features)
    return str(path)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_nearest_code():
    x, centroids = normal(3, 5, 4), normal(7, 4, seed=1)
    distances = ((x[:, :, None, :] - centroids[None, None, :, :]) ** 2).sum(axis=-1)
    codes = nearest_code(jnp.asarray(x), jnp.asarray(centroids))
    np.testing.assert_array_equal(codes, distances.argmin(axis=-1))
    assert codes.dtype == jnp.int32


def test_cepstra_stand_at_the_start_of_each_token():
    frames = jnp.asarray(normal(2, 12, 16))
    x = cepstra_of_tokens(patchify(frames, GRID), GRID)
    np.testing.assert_allclose(x, with_deltas(cepstrum(frames, 13))[:, ::2], atol=1e-5)

    # Tokens of 320 samples at 16 kHz are 20 ms long, two of Kaldi's frames; the last lacks its own.
    samples = jnp.asarray(normal(1, 1600))
    grid = TokenGrid((5,), (320,), 1)
    expected = with_deltas(mfcc(samples, 16000))
    assert expected.shape[1] == 8
    x = cepstra_of_tokens(patchify(samples[..., None], grid), grid)
    np.testing.assert_allclose(x, expected[:, [0, 2, 4, 6, 7]], atol=1e-4)


def test_codes_of_patches_and_of_a_path(tmp_path):
    patches = jnp.asarray(normal(2, 6, 32))
    path = save(tmp_path / "codes.npz", patches[0, :4], "patches")
    target = KMeansCodes(path, clusters=4, features="patches")
    target.check(GRID)
    assert target.size(GRID) == 4
    codes = jax.jit(lambda p: target({"patches": p}, GRID))(patches)
    np.testing.assert_array_equal(codes[0, :4], [0, 1, 2, 3])

    path = save(tmp_path / "layer.npz", patches[1, :3], "teachers.before.blocks.1")
    target = KMeansCodes(path, clusters=3, features="teachers.before.blocks.1")
    with_class = jnp.concatenate([patches[:, :1], patches], axis=1)
    for layer in (patches, with_class):
        out = {"teachers": {"before": {"blocks": [None, layer]}}}
        np.testing.assert_array_equal(target(out, GRID)[1, :3], [0, 1, 2])


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="no file 'none.npz' with k-means codes: fit them with"):
        KMeansCodes("none.npz").check(GRID)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="holds no k-means codes"):
        KMeansCodes(str(tmp_path / "text.npz")).check(GRID)
    path = save(tmp_path / "codes.npz", normal(4, 39))
    KMeansCodes(path, clusters=4).check(GRID)
    with pytest.raises(UserError, match="has 4 codes, the target 100"):
        KMeansCodes(path).check(GRID)
    with pytest.raises(UserError, match="are of 'mfcc', the target says 'patches'"):
        KMeansCodes(path, clusters=4, features="patches").check(GRID)
    with pytest.raises(UserError, match="39 features but 12 coefficients with slopes are 36"):
        KMeansCodes(path, clusters=4, coefficients=12).check(GRID)
    with pytest.raises(UserError, match="along time alone"):
        KMeansCodes(path, clusters=4).check(TokenGrid((3, 2), (2, 2), 1))
    with pytest.raises(UserError, match="2 clusters or more"):
        KMeansCodes(path, clusters=1).check(GRID)
    path = save(tmp_path / "narrow.npz", normal(4, 5), "patches")
    target = KMeansCodes(path, clusters=4, features="patches")
    with pytest.raises(UserError, match="are of 5 features but 'patches' has 32"):
        target({"patches": jnp.zeros((1, 6, 32))}, GRID)
    with pytest.raises(UserError, match="one vector for each of the 6 tokens"):
        target({"patches": jnp.zeros((1, 4, 32))}, GRID)


def test_random_codes():
    target = RandomCodes(clusters=16, width=8)
    target.check(GRID)
    patches = jnp.asarray(normal(20, 6, 32))
    codes = np.asarray(target({"patches": patches}, GRID))
    assert codes.shape == (20, 6) and codes.dtype == np.int32
    assert len(set(codes.reshape(-1))) > 8  # no collapse
    # The level of a projection does not matter, its shape does; and other seeds differ.
    np.testing.assert_array_equal(codes, target({"patches": 3 * patches}, GRID))
    assert (codes != np.asarray(RandomCodes(16, 8, seed=1)({"patches": patches}, GRID))).any()
    with pytest.raises(UserError, match="2 clusters or more"):
        RandomCodes(clusters=1).check(GRID)
