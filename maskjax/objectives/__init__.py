"""Terms of the objective: each reads outputs by path and returns a sum and a count."""

from maskjax.objectives.regression import MaskedRegression
from maskjax.objectives.term import Term, TermValue

__all__ = ["MaskedRegression", "Term", "TermValue"]
