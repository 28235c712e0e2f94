"""Pictures of a run that somebody asks for, and the page that shows them."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import maskjax
from maskjax.errors import UserError
from maskjax.masking import Block, DirichletBudget, Separate, Uniform
from maskjax.report import draw_maps, reconstruct, write_report
from maskjax.report.maps import look, principal_components
from maskjax.systems.other_masks import with_ratio


@pytest.fixture(scope="module")
def run(tiny_run):
    return maskjax.load(tiny_run)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def test_without_arguments_it_is_the_picture_of_the_training(run, tiny_run, tmp_path):
    drawn = reconstruct(run, tmp_path / "again.png")
    (last,) = (tiny_run / "pictures").glob("*.png")
    with Image.open(drawn) as one, Image.open(last) as other:
        np.testing.assert_array_equal(one, other)


def test_ones_own_pictures_are_prepared_as_in_evaluation(run, photos):
    batch = run.read(photos)
    each = run.system.input("image")
    for i in range(3):
        with Image.open(photos / f"{i}.png") as image:
            expected = each.read(np.asarray(image), None)
        np.testing.assert_array_equal(batch["image"][i], expected)
    assert len(run.read(f"{photos}/*.png", most=2)["image"]) == 2
    arrays = [np.zeros((9, 8, 1), np.uint8), np.full((30, 8, 3), 7, np.uint8)]
    assert run.read(arrays)["image"].shape == (2, 8, 8, 1)


def test_a_given_mask_hides_its_tokens_and_nothing_else(run, photos):
    pictures = run.reconstruct(photos, mask="0,5")
    assert list(pictures) == list(run.system.titles)
    grid = run.system.grid
    hidden = np.zeros(grid.num_tokens, bool)
    hidden[[0, 5]] = True
    pixels = np.kron(hidden.reshape(grid.shape), np.ones(grid.patch)).astype(bool)

    def equal(title, other, where):
        # Of one value, but XLA may compute it twice, in programs of another order.
        np.testing.assert_allclose(pictures[title][:, where], pictures[other][:, where], rtol=1e-6)

    equal("masked", "original", ~pixels)
    equal("paste-back", "original", ~pixels)
    equal("paste-back", "prediction", pixels)
    assert (pictures["masked"][:, pixels] == 0.5).all()
    assert np.abs(pictures["prediction"] - pictures["original"])[:, pixels].max() > 0.01


def test_ratio_and_seed_decide_what_is_hidden(run, photos):
    def hidden(**options):
        return (run.reconstruct(photos, **options)["masked"] == 0.5).reshape(3, -1)

    np.testing.assert_allclose(hidden(mask_ratio=0.25).mean(axis=1), 0.25)
    np.testing.assert_allclose(hidden(mask_ratio=0.5).mean(axis=1), 0.5)
    assert (hidden(seed=1) != hidden(seed=2)).any()
    np.testing.assert_array_equal(hidden(seed=1), hidden(seed=1))
    np.testing.assert_array_equal(hidden(), hidden(seed=run.config.seed))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_ratio": 1.0}, "masks all"),
        ({"mask_ratio": 0.0}, "masks none"),
        ({"mask": "0", "mask_ratio": 0.5}, "its own ratio"),
        ({"mask": "999"}, "hides token 999"),
        ({"mask": ""}, "hides none"),
    ],
)
def test_a_mask_that_cannot_be_is_one_sentence(run, photos, options, words):
    with pytest.raises(UserError, match=words):
        run.reconstruct(photos, **options)


def test_a_broken_picture_is_named(run, photos):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"1\.png' cannot be read"):
        run.reconstruct(photos)


def test_a_place_that_cannot_be_written_is_one_sentence(run, photos):
    with pytest.raises(UserError, match=r"call the file .*x\.png"):
        reconstruct(run, photos / "x.jpg")
    (photos / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        reconstruct(run, photos / "file" / "x.png", photos)


def test_samplers_with_and_without_a_ratio(run):
    def changed(sampler):
        system = dataclasses.replace(run.system, mask=sampler)
        object.__setattr__(system, "check", lambda: None)
        return with_ratio(system, 0.5).mask

    assert changed(Uniform(0.75)) == Uniform(0.5)
    assert changed(Block(0.4, count=3, min_block=2)) == Block(0.5, min_block=2)
    with pytest.raises(UserError, match="masks of DirichletBudget have no ratio"):
        changed(DirichletBudget())
    with pytest.raises(UserError, match="masks of DirichletBudget have no ratio"):
        changed(Separate({"a": DirichletBudget()}))


@pytest.mark.parametrize("scan", [False, True])
def test_maps_are_on_the_grid_of_the_pictures(run, photos, scan):
    system = dataclasses.replace(run.system, encoder=run.system.encoder.clone(scan=scan))
    run = dataclasses.replace(run, system=system)
    maps = look(run, photos, block=0)
    grid, heads = system.grid, system.encoder.heads
    assert maps.attention.shape == (3, heads, *grid.shape)
    assert (maps.attention >= 0).all()
    assert (maps.attention.sum(axis=(2, 3)) < 1).all()  # the class token reads itself, too
    assert (maps.block, maps.blocks, maps.class_tokens) == (0, system.encoder.depth, 1)
    patches = run.encode(run.read(photos)["image"])["encoder"]["patches"]
    np.testing.assert_allclose(maps.features.reshape(patches.shape), patches, atol=1e-5)
    with pytest.raises(UserError, match="There is no block 9"):
        look(run, photos, block=9)


def test_without_a_class_token_all_patches_are_asked(run, photos):
    encoder = run.system.encoder.clone(class_token=False)
    system = dataclasses.replace(run.system, encoder=encoder)
    params = run.variables["params"]
    params = params | {"encoder": {k: v for k, v in params["encoder"].items() if k != "cls"}}
    plain = dataclasses.replace(run, system=system, variables={"params": params})
    maps = look(plain, photos)
    assert maps.class_tokens == 0
    np.testing.assert_allclose(maps.attention.sum(axis=(2, 3)), 1, rtol=1e-5)


def test_principal_components():
    rng = np.random.default_rng(0)
    along = rng.normal(size=(2, 5, 5, 1)) * 10
    direction = np.zeros(6)
    direction[2] = -1  # the largest entry is made positive
    features = along * direction + rng.normal(size=(2, 5, 5, 6)) * 0.01 + 3
    projected, shares = principal_components(features)
    assert projected.shape == (2, 5, 5, 3) and shares[0] > 0.999
    np.testing.assert_allclose(projected[..., 0], along.mean() - along[..., 0], atol=0.1)
    few, shares = principal_components(features[..., :2])
    assert (few[..., 2] == 0).all() and shares[2] == 0
    flat, shares = principal_components(np.ones((1, 2, 2, 4)))
    assert not flat.any() and not shares.any()


def test_the_page_shows_what_was_asked_for(run, tiny_run, photos):
    workdir = photos / "run"
    shutil.copytree(tiny_run, workdir)
    before = write_report(workdir).read_text()
    sheet = draw_maps(run, workdir / "seen" / "maps.png", photos)
    with Image.open(sheet) as image:
        assert image.width > (2 + run.system.encoder.heads) * 96
    page = write_report(workdir).read_text()
    assert "Looked at afterwards" in page and "Looked at afterwards" not in before
    assert ">maps<" in page
    for words in ("MaskedAutoencoder", "6 of 6 steps", "start-up report", "1 x cpu"):
        assert words in page, words


def test_starts_are_kept(tiny_run):
    assert (tiny_run / "startup.txt").read_text().count("parameters  ") >= 1
    assert jax.__version__ in (tiny_run / "startup.txt").read_text()
