"""Reading parameters that the reference implementations named, into the trees of maskjax."""

import numpy as np


def mae_params(arrays, prefix="param/"):
    """Returns {"encoder": ..., "decoder": ...} from the names of the original MAE repository."""
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    encoder = {
        "embed": patch_embed(get),
        "cls": get["cls_token"].reshape(-1),
        "stack": {"blocks": blocks(get, "blocks.")},
        "norm": norm(get, "norm"),
    }
    decoder = {
        "embed": dense(get, "decoder_embed"),
        "mask_token": get["mask_token"].reshape(-1),
        "stack": {"blocks": blocks(get, "decoder_blocks.")},
        "norm": norm(get, "decoder_norm"),
        "head": dense(get, "decoder_pred"),
    }
    return {"encoder": encoder, "decoder": decoder}


def dense(get, name):
    return {"kernel": get[f"{name}.weight"].T, "bias": get[f"{name}.bias"]}


def norm(get, name):
    return {"scale": get[f"{name}.weight"], "bias": get[f"{name}.bias"]}


def patch_embed(get):
    # A convolution kernel [D, C, p, p]; patches here are flattened as (row, column, channel).
    kernel = get["patch_embed.proj.weight"]
    return {
        "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0]),
        "bias": get["patch_embed.proj.bias"],
    }


def blocks(get, prefix):
    depth = 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in get if k.startswith(prefix))
    each = [block(get, f"{prefix}{i}") for i in range(depth)]
    return stack(each)


def block(get, name):
    weights = np.split(get[f"{name}.attn.qkv.weight"], 3)
    biases = np.split(get[f"{name}.attn.qkv.bias"], 3)
    attention = {
        part: {"kernel": w.T, "bias": b}
        for part, w, b in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    return {
        "norm1": norm(get, f"{name}.norm1"),
        "attention": {**attention, "out": dense(get, f"{name}.attn.proj")},
        "norm2": norm(get, f"{name}.norm2"),
        "mlp": {"up": dense(get, f"{name}.mlp.fc1"), "down": dense(get, f"{name}.mlp.fc2")},
    }


def stack(trees):
    if isinstance(trees[0], dict):
        return {k: stack([tree[k] for tree in trees]) for k in trees[0]}
    return np.stack(trees)


def mae_names(params, patch):
    """Inverts `mae_params`: {name in the original repository: array}; `patch` is its side."""
    encoder, decoder = params["encoder"], params["decoder"]
    kernel = np.asarray(encoder["embed"]["kernel"])
    kernel = kernel.reshape(patch, patch, -1, kernel.shape[-1]).transpose(3, 2, 0, 1)
    named = {
        "patch_embed.proj.weight": kernel,
        "patch_embed.proj.bias": encoder["embed"]["bias"],
        "cls_token": np.reshape(encoder["cls"], (1, 1, -1)),
        "mask_token": np.reshape(decoder["mask_token"], (1, 1, -1)),
    }
    modules = {
        "norm": encoder["norm"],
        "decoder_embed": decoder["embed"],
        "decoder_norm": decoder["norm"],
        "decoder_pred": decoder["head"],
    }
    for prefix, network in (("", encoder), ("decoder_", decoder)):
        stacked = network["stack"]["blocks"]
        depth = len(stacked["norm1"]["scale"])
        for i in range(depth):
            tree = layer(stacked, i)
            name, attention = f"{prefix}blocks.{i}", tree["attention"]
            modules |= {
                f"{name}.norm1": tree["norm1"],
                f"{name}.norm2": tree["norm2"],
                f"{name}.attn.proj": attention["out"],
                f"{name}.mlp.fc1": tree["mlp"]["up"],
                f"{name}.mlp.fc2": tree["mlp"]["down"],
                f"{name}.attn.qkv": {
                    leaf: np.concatenate(
                        [attention[part][leaf] for part in ("query", "key", "value")], axis=-1
                    )
                    for leaf in ("kernel", "bias")
                },
            }
    for name, module in modules.items():
        weight = np.asarray(module["kernel"]).T if "kernel" in module else module["scale"]
        named |= {f"{name}.weight": weight, f"{name}.bias": module["bias"]}
    return named


def layer(tree, i):
    """Returns one block out of a stack of them."""
    return {k: layer(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]
