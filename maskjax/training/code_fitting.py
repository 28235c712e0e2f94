"""Fitting the k-means codes of a target, before the training that predicts them."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from maskjax.config import ConfigDict, build
from maskjax.data import eval_batches
from maskjax.errors import UserError
from maskjax.systems import MaskedAutoencoder
from maskjax.targets import KMeansCodes
from maskjax.tokens import patchify
from maskjax.training.pretrained import restore_part


def fit_codes(
    config: ConfigDict, out: str | None = None, name: str | None = None, tokens: int = 1_000_000
) -> str:
    """Fits the codes of a `targets.KMeansCodes` of a configuration and writes them.

    Args:
      config: whose data, input, patches and teachers give the features.
      out: file to write; None: the target's own path.
      name: of the target; None: the first of this kind.
      tokens: about how many are fitted, spread over the training split (all, if there are fewer).

    Returns:
      What was done, in two sentences.

    Raises:
      UserError: there is no such target, its tokens lack the features, or there are too few.
    """
    system = build(config.system, inputs=build(config.data.inputs))
    targets = getattr(system, "targets", {})
    named = {key: t for key, t in targets.items() if isinstance(t, KMeansCodes)}
    if not named or name not in (None, *named):
        known = f"it has {', '.join(named)}" if named else "there is nothing to fit"
        raise UserError(f"The system has no targets.KMeansCodes '{name or 'codes'}': {known}.")
    target = named[name or next(iter(named))]
    target.check_features(system.grid)
    x = features(config, system, target, tokens)
    if len(x) < target.clusters:
        raise UserError(f"{len(x)} tokens are too few for {target.clusters} codes: use more data.")
    from sklearn.cluster import MiniBatchKMeans

    # The settings of HuBERT's published script, up to the number of starts (there 20).
    options = dict(batch_size=10_000, max_no_improvement=100, n_init=5, reassignment_ratio=0.0)
    fit = MiniBatchKMeans(target.clusters, random_state=config.seed, **options).fit(x)
    out = os.path.expanduser(out or target.path)
    os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    with open(out, "wb") as file:
        np.savez(file, centroids=fit.cluster_centers_.astype(np.float32), features=target.features)
    share = fit.score(x) / -np.square(x - x.mean(axis=0)).sum()
    return (
        f"Fitted {target.clusters} codes of {x.shape[1]} features to {len(x)} tokens; "
        f"{100 * share:.1f} % of the variance is left within codes. Written to {out}."
    )


def features(
    config: ConfigDict, system: MaskedAutoencoder, target: KMeansCodes, tokens: int
) -> np.ndarray:
    """Returns the features of about `tokens` tokens of the training split, float32 [n, F]."""
    data, grid = system.input(system.input_name), system.grid
    key = jax.random.key(config.seed)
    teachers = {
        name: each.load(each.init(key, grid), restore_part)
        for name, each in system.teachers.items()
    }

    @jax.jit
    def extract(teachers: Mapping[str, Any], values: jax.Array) -> jax.Array:
        view = data.normalise(values)
        out = {"patches": patchify(view, grid), "pixels": patchify(data.denormalise(view), grid)}
        out["teachers"] = {
            name: each(teachers[name], out, grid, None) for name, each in system.teachers.items()
        }
        return target.extract(out, grid)

    records = build(config.data.source).open(config.data.train_split)
    examples = -(-tokens // grid.num_tokens)
    with eval_batches(
        records, {system.input_name: data}, batch_size=32, max_examples=examples
    ) as batches:
        found = [
            np.asarray(extract(teachers, batch[system.input_name]))[batch["_mask"]]
            for batch in batches
        ]
    found = np.concatenate(found)
    return found.reshape(-1, found.shape[-1])
