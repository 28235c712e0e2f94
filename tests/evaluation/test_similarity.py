import numpy as np
import pytest

from maskjax.errors import UserError
from maskjax.evaluation import DocumentRetrieval, Features, Similarity
from maskjax.evaluation.documents import ndcg
from maskjax.evaluation.similarity import spearman


def features(values):
    return Features(np.asarray(values, np.float32), None)


def test_rank_correlation():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 50), rng.normal(size=50)
    expected = stats.spearmanr(x, y + x).statistic
    np.testing.assert_allclose(spearman(x, y + x), expected, rtol=1e-12)
    assert spearman(x, np.ones(50)) == 0
    assert spearman(y, np.exp(3 * y)) == pytest.approx(1)


def pairs(shift=0.0):
    angles = np.linspace(0, 3, 20)
    first = np.stack([np.ones(20), np.zeros(20)], axis=1)
    second = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return {
        "encoder.mean": features(first * 3 + shift),
        "text2.mean": features(second + shift),
        "batch.score": features(5 - angles[:, None]),
    }


def test_similar_pairs_have_similar_features():
    similarity = Similarity()
    assert similarity.paths == ("encoder.mean", "text2.mean", "batch.score")
    assert similarity.raw == {"encoder.mean": "text", "text2.mean": "text2"}
    assert similarity({}, pairs())["spearman"] == pytest.approx(1)
    reversed_scores = {**pairs(), "batch.score": features(np.arange(20)[:, None])}
    assert similarity({}, reversed_scores)["spearman"] == pytest.approx(-1)


def test_a_common_offset_can_be_removed():
    shifted = pairs(shift=100.0)
    train = {k: features(np.full((4, 2), 100.0)) for k in ("encoder.mean", "text2.mean")}
    assert Similarity(centre=True)(train, shifted)["spearman"] == pytest.approx(1)


def test_ndcg():
    found = np.array([[0, 1, 0, 1], [1, 0, 0, 0]], bool)
    expected = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    np.testing.assert_allclose(ndcg(found, 10), [expected, 1.0])
    np.testing.assert_allclose(ndcg(found, 2), [(1 / np.log2(3)) / (1 + 1 / np.log2(3)), 1.0])


@pytest.fixture
def judged(tmp_path):
    path = tmp_path / "judgements.tsv"
    path.write_text("q\td\tr\n1\t10\t1\n1\t12\t0\n2\t11\t1\n2\t12\t1\n3\t99\t1\n")
    return str(path)


def test_documents_are_retrieved(judged):
    train = {
        "encoder.cls": features([[2, 0], [0, 3], [1, 1.5]]),
        "batch.number": features([[10], [11], [12]]),
    }
    test = {
        "encoder.cls": features([[1, 0.1], [1, 0], [5, 5]]),
        "batch.number": features([[1], [2], [3]]),
    }
    figures = DocumentRetrieval(judged)(train, test)
    # Question 1 finds its document first; question 2 its two at ranks 2 and 3; 3 has none here.
    second = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert figures["ndcg_at_10"] == pytest.approx((1 + second) / 2)
    assert figures["recall_at_100"] == 1


def test_mistakes(judged, tmp_path):
    given = {"encoder.cls": features([[1]]), "batch.number": features([[7]])}
    with pytest.raises(UserError, match="names no document"):
        DocumentRetrieval(judged)(given, given)
    with pytest.raises(UserError, match="There is no file"):
        DocumentRetrieval("absent.tsv")
    (tmp_path / "other.tsv").write_text("a\tb\nx\ty\n")
    with pytest.raises(UserError, match="is not a table"):
        DocumentRetrieval(str(tmp_path / "other.tsv"))(given, given)
