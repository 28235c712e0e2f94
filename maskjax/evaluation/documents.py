"""Retrieval of documents for questions, with relevance judgements."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfFeatures
from maskjax.evaluation.similarity import unit


@dataclasses.dataclass(frozen=True)
class DocumentRetrieval(OfFeatures):
    """Ranks all documents for every question by cosine similarity.

    The documents are the training split of the evaluation (`eval.train_split`), the questions its
    test split.

    Attributes:
      judgements: tab-separated file with a header and the columns question, document, relevance;
        a relevance of 0 is none.
      feature: path of the features, [B, D].
      number: path of the numbers by which the file names documents and questions.
      text: input whose raw values are the baseline.

    Raises:
      UserError: there is no file of judgements.
    """

    judgements: str
    feature: str = "encoder.cls"
    number: str = "batch.number"
    text: str = "text"

    needs_labels = False

    def __post_init__(self) -> None:
        if not os.path.isfile(os.path.expanduser(self.judgements)):
            raise UserError(
                f"There is no file '{self.judgements}': set `judgements` of the evaluator to a "
                "table of question, document and relevance."
            )

    @property
    def paths(self) -> tuple[str, ...]:
        """What it reads: the features and the numbers."""
        return (self.feature, self.number)

    @property
    def raw(self) -> Mapping[str, str]:
        """The input that stands for the features."""
        return {self.feature: self.text}

    def __call__(
        self, train: Mapping[str, Features], test: Mapping[str, Features]
    ) -> dict[str, float]:
        """Returns means over questions, in [0, 1].

        `ndcg_at_10`, and `recall_at_100`, the share of the relevant documents among the first 100.
        Questions without a relevant document among those given are left out.

        Raises:
          UserError: the judgements are no such table, or name none of the questions.
        """
        documents, questions = (f[self.number].values[:, 0].astype(int) for f in (train, test))
        relevant = relevance(self._read(), questions, documents)
        judged = relevant.any(axis=1)
        if not judged.any():
            raise UserError(
                f"'{self.judgements}' names no document for any of the questions: check the "
                f"numbers at {self.number}."
            )
        scores = unit(test[self.feature].values[judged]) @ unit(train[self.feature].values).T
        order = np.argsort(-scores, axis=1, kind="stable")
        found = np.take_along_axis(relevant[judged], order, axis=1)
        share = found[:, :100].sum(axis=1) / found.sum(axis=1)
        return {"ndcg_at_10": float(ndcg(found, 10).mean()), "recall_at_100": float(share.mean())}

    def _read(self) -> list[tuple[int, int]]:
        try:
            with open(os.path.expanduser(self.judgements), encoding="utf-8") as file:
                rows = [line.split("\t")[:3] for line in file.read().splitlines()[1:] if line]
            return [(int(question), int(document)) for question, document, r in rows if float(r)]
        except ValueError:
            raise UserError(
                f"'{self.judgements}' is not a table of question, document and relevance: three "
                "columns of numbers, separated by tabs, under a header."
            ) from None


def relevance(
    pairs: list[tuple[int, int]], questions: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """Returns bool [questions, documents] out of pairs of their numbers; others are ignored."""
    row = {number: i for i, number in enumerate(questions.tolist())}
    column = {number: i for i, number in enumerate(documents.tolist())}
    relevant = np.zeros((len(questions), len(documents)), bool)
    for question, document in pairs:
        if question in row and document in column:
            relevant[row[question], column[document]] = True
    return relevant


def ndcg(found: np.ndarray, top: int) -> np.ndarray:
    """Normalised discounted cumulative gain (Järvelin & Kekäläinen, 2002) of binary relevance.

    Args:
      found: bool [questions, documents], relevance in the order of the ranking.
      top: how many count.

    Returns:
      float64 [questions], in [0, 1]; every question needs a relevant document.
    """
    discounts = 1 / np.log2(np.arange(2, min(top, found.shape[1]) + 2))
    gained = (found[:, : len(discounts)] * discounts).sum(axis=1)
    best = np.cumsum(discounts)[np.minimum(found.sum(axis=1), len(discounts)) - 1]
    return gained / best
