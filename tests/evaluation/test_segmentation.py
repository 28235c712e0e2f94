import numpy as np
import pytest

from maskjax.config import ConfigDict, part
from maskjax.errors import UserError
from maskjax.evaluation import KNNSegmentation, LinearSegmentation
from maskjax.evaluation.features import Features
from maskjax.evaluation.overlap import confusion, overlap
from maskjax.evaluation.segmentation import _enlarged, grid, token_shares
from maskjax.parallel.mesh import make_mesh

LINEAR = dict(steps=300, batch_size=4, learning_rate=0.05)


def pair(tokens, maps):
    """Features as an evaluator gets them."""
    return {
        "encoder.patches": Features(tokens.astype(np.float32), None),
        "batch.map": Features(maps[..., None].astype(np.int32), None),
    }


def stripes(count, seed, ignored=0.1, classes=3, noise=0.05):
    """Images of 2 x 4 tokens of 6 x 6 pixels, each column of one class that its tokens tell."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, classes, (count, 4))
    of_tokens = np.tile(columns[:, None], (1, 2, 1)).reshape(count, 8)
    maps = np.tile(np.repeat(columns, 6, axis=1)[:, None], (1, 12, 1))
    maps[rng.random(maps.shape) < ignored] = 255
    tokens = np.eye(classes + 2)[of_tokens] + noise * rng.normal(size=(count, 8, classes + 2))
    return tokens, maps


def by_hand(truth, predicted, classes):
    ious, shares = [], []
    for c in range(classes):
        here, there = (truth == c), (predicted == c) & (truth != 255)
        if (here | there).any():
            ious.append((here & there).sum() / (here | there).sum())
        if here.any():
            shares.append((here & there).sum() / here.sum())
    known = truth != 255
    return np.mean(ious), (truth == predicted)[known].mean(), np.mean(shares)


def test_figures_agree_with_their_definition_and_scikit_learn():
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 4, 255], (5, 7, 9))
    predicted = rng.choice([0, 1, 2, 3], truth.shape)  # 3 is never true, 4 never predicted
    halves = [confusion(truth[part], predicted[part], 6) for part in (slice(2), slice(2, 5))]
    found = overlap(sum(halves))
    np.testing.assert_allclose(list(found.values()), by_hand(truth, predicted, 6), rtol=1e-12)
    known = truth != 255
    expected = jaccard_score(truth[known], predicted[known], average="macro")
    assert found["miou"] == pytest.approx(expected, rel=1e-12)
    assert halves[0].sum() == (truth[:2] != 255).sum()


@pytest.mark.parametrize("probe", [LinearSegmentation(3, **LINEAR), KNNSegmentation(3, k=5)])
def test_tokens_that_tell_their_class_give_the_map(probe):
    figures = probe(pair(*stripes(20, 0)), pair(*stripes(9, 1)))
    assert figures == {"miou": 1.0, "pixel_accuracy": 1.0, "class_accuracy": 1.0}
    tokens, maps = stripes(9, 1)
    wrong = probe(pair(*stripes(20, 0)), pair(tokens[::-1], maps))
    assert wrong["miou"] < 0.7


def test_without_any_information_the_linear_probe_tells_how_frequent_classes_are():
    """The optimum is known: the bias is the logarithm of the shares of the labelled pixels."""
    rng = np.random.default_rng(0)
    maps = rng.choice([0, 1, 2, 255], (4, 12, 24), p=[0.5, 0.25, 0.15, 0.1])
    tokens = np.ones((4, 8, 5), np.float32)
    probe = LinearSegmentation(3, **LINEAR)
    known = np.where(maps == 255, -1, maps)
    scale = np.zeros(5, np.float32), np.ones(5, np.float32)
    params = probe._fit(0 * tokens, known, scale)
    shares = np.bincount(maps[maps != 255]) / (maps != 255).sum()
    found = np.asarray(params["bias"])
    np.testing.assert_allclose(
        found - found.mean(), np.log(shares) - np.log(shares).mean(), atol=0.01
    )
    figures = probe(pair(tokens, maps), pair(tokens, maps))
    assert figures["pixel_accuracy"] == pytest.approx(shares[0])
    assert figures["miou"] == pytest.approx(shares[0] / 3)


def test_neighbours_agree_with_their_definition():
    """Soft labels of half-covered tokens, weights, enlarging: in float64, token by token."""
    rng = np.random.default_rng(3)
    maps, truth = rng.choice([0, 1, 2, 255], (2, 6, 8, 12), p=[0.4, 0.3, 0.2, 0.1])
    maps[0, :4, :4] = 255  # a token without a labelled pixel is nobody's neighbour
    known, asked = rng.normal(size=(2, 6, 6, 4)).astype(np.float32)
    shares, rows = [], []
    for image, vectors in zip(maps, known, strict=True):
        for token in range(6):
            r, c = 4 * (token // 3), 4 * (token % 3)
            pixels = image[r : r + 4, c : c + 4]
            pixels = pixels[pixels != 255]
            if pixels.size:
                shares.append(np.bincount(pixels, minlength=3) / pixels.size)
                rows.append(vectors[token] / np.linalg.norm(vectors[token]))
    assert len(rows) == 35
    np.testing.assert_allclose(token_shares(np.where(maps == 255, -1, maps), 6, 3)[0, 0], 0)
    scores = np.zeros((6, 6, 3))
    for image in range(6):
        for token in range(6):
            vector = asked[image, token] / np.linalg.norm(asked[image, token])
            near = np.array(rows) @ vector
            best = np.argsort(-near)[:7]
            weights = np.exp(near[best] / 0.1)
            scores[image, token] = weights @ np.array(shares)[best] / weights.sum()
    predicted = np.asarray(_enlarged(scores.astype(np.float32), (8, 12))).argmax(axis=-1)
    probe = KNNSegmentation(3, k=7, temperature=0.1)
    found = probe(pair(known, maps), pair(asked, truth))
    np.testing.assert_allclose(list(found.values()), by_hand(truth, predicted, 3), atol=1e-9)
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1))
    train = pair(known, maps)
    train["encoder.patches"] = Features(train["encoder.patches"].values, None, mesh)
    assert probe(train, pair(asked, truth)) == found


def test_scores_are_enlarged_as_pytorch_does():
    torch = pytest.importorskip("torch")

    scores = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(np.float32)
    found = np.asarray(_enlarged(scores, (24, 32)))
    maps = torch.from_numpy(scores.reshape(2, 3, 4, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(maps, (24, 32), mode="bilinear")
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_grid():
    assert grid(196, (224, 224)) == (14, 14)
    assert grid(192, (144, 192)) == (12, 16)
    assert grid(196, (56, 56)) == (14, 14)  # maps of a quarter of the image's size
    for tokens, size in ((197, (224, 224)), (8, (12, 12)), (196, (100, 100))):
        with pytest.raises(UserError, match="square patches"):
            grid(tokens, size)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda t, m: (t[:, 0], m), "segmentation reads tokens"),
        (lambda t, m: (t, m[..., 0]), "name an input data.ClassMap"),
        (lambda t, m: (t[:, :7], m), "7 tokens cannot lie on a map of 12 x 24"),
        (lambda t, m: (t, np.where(m == 1, 3, m)), "from -1 to 3, but .* was told 3"),
        (lambda t, m: (t, np.full_like(m, 255)), "No pixel of the train maps"),
        (lambda t, m: (t / 0, m), "train features contain NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_does_not_fit_is_one_sentence(change, words):
    good = stripes(4, 0)
    with pytest.raises(UserError, match=words):
        LinearSegmentation(3)(pair(*change(*good)), pair(*good))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearSegmentation(1),
        lambda: LinearSegmentation(3, steps=0),
        lambda: KNNSegmentation(3, k=0),
        lambda: KNNSegmentation(3, temperature=0.0),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(UserError, match="needs"):
        make()


def test_a_run_is_evaluated_by_its_maps(tiny_run):
    """The map is that of the grey values, as the records have it."""
    import maskjax
    from maskjax.evaluation import evaluate

    said = []
    run = maskjax.load(tiny_run)
    config = run.config.copy_and_resolve_references().unlock()
    config.data.source = part(
        "data.Paired", sources=dict(image=part("data.Digits"), map=part("data.Digits"))
    )
    config.data.inputs = ConfigDict(
        dict(image=config.data.inputs.image, map=part("data.ClassMap", size=(8, 8), classes=256))
    )
    probes = dict(
        segmentation=part("evaluation.LinearSegmentation", classes=256, steps=20),
        knn_segmentation=part("evaluation.KNNSegmentation", classes=256, k=3),
    )
    config.eval.evaluators = ConfigDict(probes)
    config.eval.max_train_examples, config.eval.batch_size = 100, 64
    figures = evaluate(run, config, say=said.append)
    assert set(figures) == {
        f"eval/{name}/{figure}"
        for name in probes
        for figure in ("miou", "pixel_accuracy", "class_accuracy")
    }
    assert 0 < figures["eval/segmentation/miou"] < 1
    assert "segmentation: LinearSegmentation of encoder.patches, batch.map." in said
