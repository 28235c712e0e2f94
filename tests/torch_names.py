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
    bias = {"bias": get[f"{name}.bias"]} if f"{name}.bias" in get else {}
    return {"kernel": get[f"{name}.weight"].T, **bias}


def norm(get, name):
    return {"scale": get[f"{name}.weight"], "bias": get[f"{name}.bias"]}


def patch_embed(get, name="patch_embed.proj"):
    # A convolution kernel [D, C, (t,) p, p]; patches here are flattened as ((frame,) row, column,
    # channel).
    kernel = get[f"{name}.weight"]
    order = (*range(2, kernel.ndim), 1, 0)
    return {
        "kernel": kernel.transpose(order).reshape(-1, kernel.shape[0]),
        "bias": get[f"{name}.bias"],
    }


def patch_embed_names(tree, patch, name="patch_embed.proj"):
    """Inverts `patch_embed`; `patch` is the extent of a patch along each axis."""
    kernel = np.asarray(tree["kernel"])
    kernel = kernel.reshape(*patch, -1, kernel.shape[-1])
    order = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    return {f"{name}.weight": kernel.transpose(order), f"{name}.bias": np.asarray(tree["bias"])}


def blocks(get, prefix):
    depth = 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in get if k.startswith(prefix))
    each = [block(get, f"{prefix}{i}") for i in range(depth)]
    return stack(each)


def block(get, name):
    """Reads a block; biases of attention and layer scale (gamma_1, gamma_2) are optional."""
    weights = np.split(get[f"{name}.attn.qkv.weight"], 3)
    biases = (None, None, None)
    if f"{name}.attn.qkv.bias" in get:
        biases = np.split(get[f"{name}.attn.qkv.bias"], 3)
    elif f"{name}.attn.q_bias" in get:  # the key has none
        biases = (get[f"{name}.attn.q_bias"], None, get[f"{name}.attn.v_bias"])
    attention = {
        part: {"kernel": w.T} | ({} if b is None else {"bias": b})
        for part, w, b in zip(("query", "key", "value"), weights, biases, strict=True)
    }
    scales = {
        f"scale{i}": {"scale": get[f"{name}.gamma_{i}"]}
        for i in (1, 2)
        if f"{name}.gamma_{i}" in get
    }
    if f"{name}.attn.scale" in get:  # logarithm of the factor of cosine attention
        attention["scale"] = get[f"{name}.attn.scale"].reshape(-1)
    return {
        "norm1": norm(get, f"{name}.norm1"),
        "attention": {**attention, "out": dense(get, f"{name}.attn.proj")},
        "norm2": norm(get, f"{name}.norm2"),
        "mlp": {"up": dense(get, f"{name}.mlp.fc1"), "down": dense(get, f"{name}.mlp.fc2")},
        **scales,
    }


def stack(trees):
    if isinstance(trees[0], dict):
        return {k: stack([tree[k] for tree in trees]) for k in trees[0]}
    return np.stack(trees)


def mae_names(params, patch):
    """Inverts `mae_params`: {name in the original repository: array}; `patch` is its side."""
    encoder, decoder = params["encoder"], params["decoder"]
    return {
        **patch_embed_names(encoder["embed"], (patch, patch)),
        "cls_token": np.reshape(encoder["cls"], (1, 1, -1)),
        "mask_token": np.reshape(decoder["mask_token"], (1, 1, -1)),
        **module_names(encoder["norm"], "norm"),
        **module_names(decoder["embed"], "decoder_embed"),
        **module_names(decoder["norm"], "decoder_norm"),
        **module_names(decoder["head"], "decoder_pred"),
        **blocks_names(encoder["stack"]["blocks"], "blocks."),
        **blocks_names(decoder["stack"]["blocks"], "decoder_blocks."),
    }


def module_names(tree, name):
    """Inverts `dense` and `norm`."""
    weight = np.asarray(tree["kernel"]).T if "kernel" in tree else np.asarray(tree["scale"])
    named = {f"{name}.weight": weight}
    return named | ({f"{name}.bias": np.asarray(tree["bias"])} if "bias" in tree else {})


def blocks_names(stacked, prefix):
    """Inverts `blocks`."""
    named = {}
    for i in range(len(stacked["norm1"]["scale"])):
        named |= block_names(layer(stacked, i), f"{prefix}{i}")
    return named


def block_names(tree, name):
    """Inverts `block`."""
    attention = tree["attention"]
    parts = [attention[part] for part in ("query", "key", "value")]
    qkv = np.concatenate([np.asarray(part["kernel"]).T for part in parts])
    named = {f"{name}.attn.qkv.weight": qkv}
    if all("bias" in part for part in parts):
        named[f"{name}.attn.qkv.bias"] = np.concatenate([part["bias"] for part in parts])
    elif "bias" in parts[0]:
        named |= {f"{name}.attn.q_bias": parts[0]["bias"], f"{name}.attn.v_bias": parts[2]["bias"]}
    if "scale" in attention:
        named[f"{name}.attn.scale"] = np.reshape(attention["scale"], (-1, 1, 1))
    for i in (1, 2):
        if f"scale{i}" in tree:
            named[f"{name}.gamma_{i}"] = tree[f"scale{i}"]["scale"]
    modules = {
        "norm1": tree["norm1"],
        "norm2": tree["norm2"],
        "attn.proj": attention["out"],
        "mlp.fc1": tree["mlp"]["up"],
        "mlp.fc2": tree["mlp"]["down"],
    }
    for suffix, module in modules.items():
        named |= module_names(module, f"{name}.{suffix}")
    return named


def layer(tree, i):
    """Returns one block out of a stack of them."""
    return {k: layer(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]


def simmim_params(arrays, prefix="param/"):
    """Returns {"encoder": ..., "decoder": ...} from the names of SimMIM's repository (ViT)."""
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    encoder = {
        "embed": patch_embed(get, "encoder.patch_embed.proj"),
        "cls": get["encoder.cls_token"].reshape(-1),
        "mask_token": get["encoder.mask_token"].reshape(-1),
        "relative_bias": {"table": get["encoder.rel_pos_bias.relative_position_bias_table"]},
        "stack": {"blocks": blocks(get, "encoder.blocks.")},
        "norm": norm(get, "encoder.norm"),
    }
    head = {"kernel": get["decoder.0.weight"][:, :, 0, 0].T, "bias": get["decoder.0.bias"]}
    return {"encoder": encoder, "decoder": {"linear": head}}


def simmim_names(params, patch):
    """Inverts `simmim_params`; `patch` is (height, width)."""
    encoder, head = params["encoder"], params["decoder"]["linear"]
    return {
        **patch_embed_names(encoder["embed"], patch, "encoder.patch_embed.proj"),
        "encoder.cls_token": np.reshape(encoder["cls"], (1, 1, -1)),
        "encoder.mask_token": np.reshape(encoder["mask_token"], (1, 1, -1)),
        "encoder.rel_pos_bias.relative_position_bias_table": encoder["relative_bias"]["table"],
        **blocks_names(encoder["stack"]["blocks"], "encoder.blocks."),
        **module_names(encoder["norm"], "encoder.norm"),
        "decoder.0.weight": np.asarray(head["kernel"]).T[:, :, None, None],
        "decoder.0.bias": head["bias"],
    }


def videomae_params(arrays, prefix="param/"):
    """Returns {"encoder": ..., "decoder": ...} from the names of VideoMAE's repositories."""
    get = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    encoder = {
        "embed": patch_embed(get, "encoder.patch_embed.proj"),
        "stack": {"blocks": blocks(get, "encoder.blocks.")},
        "norm": norm(get, "encoder.norm"),
    }
    decoder = {
        "embed": dense(get, "encoder_to_decoder"),
        "mask_token": get["mask_token"].reshape(-1),
        "stack": {"blocks": blocks(get, "decoder.blocks.")},
        "norm": norm(get, "decoder.norm"),
        "head": dense(get, "decoder.head"),
    }
    return {"encoder": encoder, "decoder": decoder}


def videomae_names(params, patch):
    """Inverts `videomae_params`; `patch` is (frames, height, width)."""
    encoder, decoder = params["encoder"], params["decoder"]
    return {
        **patch_embed_names(encoder["embed"], patch, "encoder.patch_embed.proj"),
        **blocks_names(encoder["stack"]["blocks"], "encoder.blocks."),
        **module_names(encoder["norm"], "encoder.norm"),
        **module_names(decoder["embed"], "encoder_to_decoder"),
        "mask_token": np.reshape(decoder["mask_token"], (1, 1, -1)),
        **blocks_names(decoder["stack"]["blocks"], "decoder.blocks."),
        **module_names(decoder["norm"], "decoder.norm"),
        **module_names(decoder["head"], "decoder.head"),
    }
