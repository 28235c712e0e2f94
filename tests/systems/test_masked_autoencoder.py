import jax
import numpy as np
import pytest

from maskjax.config import default_config, part
from maskjax.errors import UserError
from maskjax.masking import mask_from_indices
from maskjax.systems import build_system


def config(size=(4, 8), channels=3, patch=(2, 2), target="NormalisedPixels", ratio=0.5):
    c = default_config()
    mean, std = (0.4,) * channels, (0.3,) * channels
    c.data.inputs.image = part("data.Image", size=size, channels=channels, mean=mean, std=std)
    c.system.encoder = part("models.ViT", patch_size=patch, width=16, depth=1, heads=2)
    c.system.decoder = part("models.MAEDecoder", width=16, depth=1, heads=2)
    c.system.targets = dict(pixels=part(f"targets.{target}"))
    c.system.mask.ratio = ratio
    return c


@pytest.fixture(scope="module", params=["Pixels", "NormalisedPixels"])
def pictures(request):
    system = build_system(config(target=request.param))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 3), dtype=np.uint8)
    masks = {"image": mask_from_indices(np.array([[0, 3, 5, 6], [1, 2, 4, 7]]), 8)}
    variables = jax.jit(system.init)(jax.random.key(0))
    out = jax.jit(system.reconstruct)(variables, {"image": images}, masks)
    hidden = np.asarray(masks["image"].is_masked).reshape(2, 2, 4)
    return system, images / 255, hidden.repeat(2, 1).repeat(2, 2), jax.device_get(out)


def test_pictures_show_what_their_titles_say(pictures):
    _, images, hidden, out = pictures
    np.testing.assert_allclose(out["original"], images, atol=1e-5)
    np.testing.assert_allclose(out["masked"][~hidden], images[~hidden], atol=1e-5)
    np.testing.assert_allclose(out["masked"][hidden], 0.5, atol=1e-5)
    np.testing.assert_allclose(out["paste-back"][~hidden], images[~hidden], atol=1e-5)
    # XLA may compute the prediction once for each of the two pictures, rounded differently.
    np.testing.assert_allclose(out["paste-back"][hidden], out["prediction"][hidden], atol=1e-6)
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in out.values())


def test_the_note_confesses_the_use_of_target_statistics(pictures):
    system = pictures[0]
    uses = next(iter(system.targets.values())).uses_target_statistics
    assert ("taken from the original" in system.picture_note()) == uses


def test_normalised_predictions_have_the_statistics_of_the_original_patch():
    """With a prediction of zeros the picture is the mean of each patch."""
    system = build_system(config(channels=1))
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 1), dtype=np.uint8)
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    masks = {"image": mask_from_indices(np.array([[0, 1]]), 8)}
    shown = jax.jit(system.reconstruct)(variables, {"image": images}, masks)["prediction"]
    means = images.reshape(1, 2, 2, 4, 2, 1).mean((2, 4)) / 255
    np.testing.assert_allclose(shown[:, ::2, ::2], means, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(size=(2, 8), patch=(4, 4)), "smaller than a patch"),
        (dict(size=(6, 8), patch=(4, 4)), "not divisible"),
        (dict(ratio=0.0), "masks none"),
        (dict(ratio=0.99), "masks all"),
        (dict(patch=(1, 1), channels=1), "more than one value per patch"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        build_system(config(**options))
