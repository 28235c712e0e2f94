"""Parameters of M3AE's and MultiMAE's reference implementations, as trees of maskjax and back."""

import numpy as np

import torch_names


def m3ae_params(arrays):
    """Returns {"encoder": ..., "decoder": ...} from the names of M3AE's Flax modules."""
    get = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}

    def vector(name):
        return get[name].reshape(-1)

    encoder = {
        "embedders_image": {"proj": _leaves(get, "image_embedding")},
        "embedders_text": {"table": get["text_embedding/embedding"]},
        "type_image": vector("encoder_image_type_embedding"),
        "type_text": vector("encoder_text_type_embedding"),
        "globals": get["cls_token"].reshape(1, -1),
        "stack": {"blocks": _flax_blocks(get, "encoder")},
        "norm": _leaves(get, "encoder/LayerNorm_0"),
    }
    decoder = {
        "embed": _leaves(get, "decoder_input_projection"),
        "mask_token_image": vector("image_mask_embedding"),
        "mask_token_text": vector("text_mask_embedding"),
        "type_image": vector("decoder_image_type_embedding"),
        "type_text": vector("decoder_text_type_embedding"),
        "stack": {"blocks": _flax_blocks(get, "decoder")},
        "norm": _leaves(get, "decoder/LayerNorm_0"),
        "head_image": _leaves(get, "decoder_image_output/Dense_0"),
        "head_text": _leaves(get, "decoder_text_output/Dense_0"),
    }
    return {"encoder": encoder, "decoder": decoder}


def m3ae_names(params):
    """Inverts `m3ae_params` for the parameters whose gradients are compared."""
    encoder, decoder = params["encoder"], params["decoder"]
    return {
        "cls_token": encoder["globals"][None],
        "encoder_text_type_embedding": encoder["type_text"][None, None],
        "image_mask_embedding": decoder["mask_token_image"][None, None],
        "text_mask_embedding": decoder["mask_token_text"][None, None],
        "text_embedding/embedding": encoder["embedders_text"]["table"],
        "image_embedding/kernel": encoder["embedders_image"]["proj"]["kernel"],
        "decoder_text_output/Dense_0/bias": decoder["head_text"]["bias"],
    }


def multimae_params(arrays, patch=8, channels=(("rgb", 3), ("depth", 1), ("norm_rgb", 3))):
    """Returns {"encoder": ..., "decoder": ...} from the names of MultiMAE's torch modules."""
    get = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    encoder = {
        "globals": get["global_tokens"][0],
        "stack": {"blocks": torch_names.blocks(get, "encoder.")},
    }
    for name in ("rgb", "depth", "semseg"):
        kernel = get[f"input_adapters.{name}.proj.weight"]
        proj = {
            "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0]),
            "bias": get[f"input_adapters.{name}.proj.bias"],
        }
        encoder[f"embedders_{name}"] = {"proj": proj}
    encoder["embedders_semseg"]["table"] = get["input_adapters.semseg.class_emb.weight"]
    decoder = {}
    for task in ("rgb", "depth", "semseg", "norm_rgb"):
        name = f"output_adapters.{task}"
        key, value = np.split(get[f"{name}.decoder.kv.weight"], 2)
        key_bias, value_bias = np.split(get[f"{name}.decoder.kv.bias"], 2)
        head = torch_names.dense(get, f"{name}.out_proj")
        decoder[task] = {
            "embed": torch_names.dense(get, f"{name}.proj_context"),
            "mask_token": get[f"{name}.mask_token"].reshape(-1),
            **{
                f"type_{m}": get[f"{name}.task_embeddings.{m}"].reshape(-1)
                for m in ("rgb", "depth", "semseg")
            },
            "cross": {
                "norm1": torch_names.norm(get, f"{name}.query_norm"),
                "norm_context": torch_names.norm(get, f"{name}.context_norm"),
                "attention": {
                    "query": torch_names.dense(get, f"{name}.decoder.q"),
                    "key": {"kernel": key.T, "bias": key_bias},
                    "value": {"kernel": value.T, "bias": value_bias},
                    "out": torch_names.dense(get, f"{name}.decoder.proj"),
                },
                "norm2": torch_names.norm(get, f"{name}.out_norm"),
                "mlp": {
                    "up": torch_names.dense(get, f"{name}.mlp.fc1"),
                    "down": torch_names.dense(get, f"{name}.mlp.fc2"),
                },
            },
            "stack": {"blocks": torch_names.blocks(get, f"{name}.decoder_transformer.")},
            "head": {leaf: channels_last(x, task) for leaf, x in head.items()},
        }
    return {"encoder": encoder, "decoder": decoder}


def channels_last(x, task, back=False):
    """Reorders the outputs of a head, (channel, row, column) there, (row, column, channel) here."""
    shape = {"rgb": (3, 8, 8), "norm_rgb": (3, 8, 8), "depth": (1, 8, 8), "semseg": (5, 2, 2)}[task]
    if back:
        shape = (*shape[1:], shape[0])
    x = np.asarray(x)
    cut = x.reshape(*x.shape[:-1], *shape)
    order = (-1, -3, -2) if back else (-2, -1, -3)
    leading = range(x.ndim - 1)
    return cut.transpose(*leading, *(cut.ndim + i for i in order)).reshape(x.shape)


def multimae_names(params):
    """Inverts `multimae_params` for the parameters whose gradients are compared."""
    encoder, decoder = params["encoder"], params["decoder"]
    kernel = np.asarray(encoder["embedders_rgb"]["proj"]["kernel"])
    cross = decoder["depth"]["cross"]["attention"]
    return {
        "global_tokens": encoder["globals"][None],
        "input_adapters.semseg.class_emb.weight": encoder["embedders_semseg"]["table"],
        "input_adapters.rgb.proj.weight": kernel.reshape(8, 8, 3, -1).transpose(3, 2, 0, 1),
        "output_adapters.rgb.mask_token": decoder["rgb"]["mask_token"][None, None],
        "output_adapters.rgb.task_embeddings.depth": decoder["rgb"]["type_depth"][None, None],
        "output_adapters.norm_rgb.out_proj.bias": channels_last(
            decoder["norm_rgb"]["head"]["bias"], "norm_rgb", back=True
        ),
        "output_adapters.depth.decoder.kv.weight": np.concatenate(
            [np.asarray(cross["key"]["kernel"]).T, np.asarray(cross["value"]["kernel"]).T]
        ),
    }


def _leaves(get, name):
    return {k.removeprefix(f"{name}/"): v for k, v in get.items() if k.startswith(f"{name}/")}


def _flax_blocks(get, prefix):
    names = {k.split("/")[1] for k in get if k.startswith(f"{prefix}/Block_")}
    return torch_names.stack([_flax_block(get, f"{prefix}/{name}") for name in sorted(names)])


def _flax_block(get, name):
    kernels = np.split(get[f"{name}/Attention_0/Dense_0/kernel"], 3, axis=1)
    biases = np.split(get[f"{name}/Attention_0/Dense_0/bias"], 3)
    parts = zip(("query", "key", "value"), kernels, biases, strict=True)
    return {
        "norm1": _leaves(get, f"{name}/LayerNorm_0"),
        "attention": {
            **{part: {"kernel": kernel, "bias": bias} for part, kernel, bias in parts},
            "out": _leaves(get, f"{name}/Attention_0/Dense_1"),
        },
        "norm2": _leaves(get, f"{name}/LayerNorm_1"),
        "mlp": {
            "up": _leaves(get, f"{name}/TransformerMLP_0/fc1"),
            "down": _leaves(get, f"{name}/TransformerMLP_0/fc2"),
        },
    }
