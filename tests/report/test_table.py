import pytest

from maskjax.report import evaluation_table, format_table


def test_rows_are_representations_and_columns_evaluators():
    metrics = {
        "eval/linear/accuracy": 0.97449,
        "eval/knn/accuracy": 0.9,
        "eval/linear/iterations": 31.0,
        "eval/random/knn/accuracy": 0.5,
        "eval/raw/knn/accuracy": 1.0,
        "eval/raw/linear/accuracy": 0.0,
        "train/accuracy": 0.1,
    }
    assert evaluation_table(metrics) == [
        ["representation", "kNN", "linear probe"],
        ["raw data", "100.0 %", "0.0 %"],
        ["random-init encoder", "50.0 %", "—"],
        ["pretrained encoder", "90.0 %", "97.4 %"],
    ]


def test_unknown_evaluators_and_baselines_follow_under_their_names():
    table = evaluation_table({"eval/zoo/attentive/accuracy": 0.5, "eval/knn/accuracy": 0.25})
    assert table[0] == ["representation", "kNN", "attentive"]
    assert ["zoo", "—", "50.0 %"] in table
    assert table[-1] == ["pretrained encoder", "25.0 %", "—"]


@pytest.mark.parametrize("metrics", [{}, {"train/loss": 1.0, "eval/linear/iterations": 3.0}])
def test_nothing_evaluated_is_no_table(metrics):
    assert evaluation_table(metrics) == []
    assert format_table(evaluation_table(metrics)) == ""


def test_a_value_that_is_no_number_is_missing():
    assert evaluation_table({"eval/knn/accuracy": float("nan")})[-1][1] == "—"


def test_columns_are_aligned():
    text = format_table([["name", "kNN"], ["a", "100.0 %"], ["a longer name", "—"]])
    assert text.splitlines() == [
        "name               kNN",
        "-------------  -------",
        "a              100.0 %",
        "a longer name        —",
    ]


def test_predictions_of_a_classifier_are_no_representation():
    """There is nothing to compare them with, and the encoder may not be pretrained."""
    table = evaluation_table({"eval/accuracy/top_1": 0.5, "eval/accuracy/top_5": 0.75})
    assert table == [
        ["network", "accuracy top-1", "accuracy top-5"],
        ["classifier", "50.0 %", "75.0 %"],
    ]
    both = evaluation_table({"eval/accuracy/top_1": 0.5, "eval/knn/accuracy": 0.25})
    assert [row[0] for row in both[1:]] == ["raw data", "random-init encoder", "pretrained encoder"]
