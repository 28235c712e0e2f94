"""What the tests of several optimisers share."""

import jax
import numpy as np

import torch_names


def descend(optimizer, params, grads, learning_rate):
    """Returns the parameters after each step."""
    optimizer = optimizer.build(len(grads))
    state, course = optimizer.init(params), []
    for gradient in grads:
        direction, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
        course.append(params)
    return course


def classifier(names, arrays):
    """The classifier's parameters; every value is the place of its name in `names`."""
    numbers = {
        name: np.full(arrays[f"param/vit/{name}"].shape, i, np.float32)
        for i, name in enumerate(names)
    }
    return {
        "encoder": {
            "embed": torch_names.patch_embed(numbers),
            "cls": numbers["cls_token"].reshape(-1),
            "positions": numbers["pos_embed"][0],
            "stack": {"blocks": torch_names.blocks(numbers, "blocks.")},
            "norm": torch_names.norm(numbers, "fc_norm"),
        },
        "head": torch_names.dense(numbers, "head"),
    }
