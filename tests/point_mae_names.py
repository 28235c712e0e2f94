"""Reading the parameters of Point-MAE's reference into the trees of maskjax."""

import jax
import jax.numpy as jnp
import numpy as np

import torch_names
from maskjax.masking import mask_from_indices

ENCODER = "MAE_encoder.encoder."


def convolution(get, name):
    return {"kernel": get[f"{name}.weight"][:, :, 0].T, "bias": get[f"{name}.bias"]}


def positions(get, name):
    return {
        "up": torch_names.dense(get, f"{name}.0"),
        "down": torch_names.dense(get, f"{name}.2"),
    }


def blocks(get, prefix):
    # The projections to query, key and value have no biases: zeros to split, then left out.
    get = dict(get)
    for name in [k for k in get if k.startswith(prefix) and k.endswith("qkv.weight")]:
        get[name.replace("weight", "bias")] = np.zeros(len(get[name]), np.float32)
    tree = torch_names.blocks(get, prefix)
    for part in ("query", "key", "value"):
        del tree["attention"][part]["bias"]
    return tree


def statistics(arrays, prefix):
    return {
        "embed": {
            f"{stage}_norm": {
                "mean": arrays[f"{prefix}{ENCODER}{stage}_conv.1.running_mean"],
                "var": arrays[f"{prefix}{ENCODER}{stage}_conv.1.running_var"],
            }
            for stage in ("first", "second")
        }
    }


def params(arrays):
    get = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    embed = {}
    for stage in ("first", "second"):
        embed[f"{stage}_up"] = convolution(get, f"{ENCODER}{stage}_conv.0")
        embed[f"{stage}_norm"] = torch_names.norm(get, f"{ENCODER}{stage}_conv.1")
        embed[f"{stage}_down"] = convolution(get, f"{ENCODER}{stage}_conv.3")
    encoder = {
        "embed": embed,
        "positions": positions(get, "MAE_encoder.pos_embed"),
        "stack": {"blocks": blocks(get, "MAE_encoder.blocks.blocks.")},
        "norm": torch_names.norm(get, "MAE_encoder.norm"),
    }
    decoder = {
        "mask_token": get["mask_token"].reshape(-1),
        "positions": positions(get, "decoder_pos_embed"),
        "stack": {"blocks": blocks(get, "MAE_decoder.blocks.")},
        "norm": torch_names.norm(get, "MAE_decoder.norm"),
        "head": convolution(get, "increase_dim.0"),
    }
    return jax.tree.map(jnp.asarray, {"encoder": encoder, "decoder": decoder})


def mask_of(reference):
    keep = np.stack([np.flatnonzero(~row) for row in reference["in/mask"]])
    return mask_from_indices(jnp.asarray(keep), 16)
