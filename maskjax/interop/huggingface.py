"""Directories that Hugging Face's transformers load: configuration, weights and a model card."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskjax.errors import UserError
from maskjax.interop.card import CARD, model_card
from maskjax.interop.files import WEIGHTS, write_weights
from maskjax.interop.weights import write_variables
from maskjax.loading import Loaded
from maskjax.report.history import History

_BICUBIC = 3  # as Pillow and transformers number the resampling filters


def write_model(run: Loaded, out: Path, layout: str, history: History) -> None:
    """Writes the weights of a run for another program.

    Always `model.safetensors` and `README.md`, a model card. For `vit_mae`, `vit`, `videomae`,
    `beit` and `beit_model` also `config.json` and `preprocessor_config.json`: `from_pretrained`
    takes the directory.

    Args:
      run: from `maskjax.load`.
      out: directory, created.
      layout: a name of `layouts.LAYOUTS`.
      history: the metrics of the run, for the card.

    Raises:
      UserError: the system does not fit the layout, or the directory cannot be written.
    """
    arrays = write_variables(run.system, run.variables, layout)
    contents = f"`{WEIGHTS}`: the weights, float32, under the names of layout `{layout}`."
    files = {CARD: model_card(run, history, [contents])}
    if layout in _CONFIGS:
        files["config.json"] = _json(_CONFIGS[layout](run.system))
        files["preprocessor_config.json"] = _json(_preprocessor(run.system))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text)
        write_weights(out / WEIGHTS, arrays)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from None


def _encoder(system: Any) -> dict[str, Any]:
    encoder, data = system.encoder, system.input(system.input_name)
    size, patch = tuple(data.size)[-2:], tuple(encoder.patch_size)[-2:]
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": round(encoder.width * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "num_channels": data.channels,
        "dtype": "float32",
    }


def _decoder(system: Any) -> dict[str, Any]:
    decoder = system.decoder
    return {
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": round(decoder.width * decoder.mlp_ratio),
        "norm_pix_loss": any(type(t).__name__.startswith("Norm") for t in system.targets.values()),
    }


def _vit_mae(system: Any) -> dict[str, Any]:
    size, patch = (
        tuple(x) for x in (system.input(system.input_name).size, system.encoder.patch_size)
    )
    if len(set(size)) > 1 or len(set(patch)) > 1:
        raise UserError(
            f"ViTMAE of transformers takes square images and patches, not {size} and {patch}: "
            "write the encoder alone with --layout=vit."
        )
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        **_encoder(system),
        **_decoder(system),
        "qkv_bias": True,
        "mask_ratio": getattr(system.mask, "ratio", 0.75),
    }


def _vit(system: Any) -> dict[str, Any]:
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        **_encoder(system),
        "qkv_bias": True,
    }


def _videomae(system: Any) -> dict[str, Any]:
    return {
        "architectures": ["VideoMAEForPreTraining"],
        "model_type": "videomae",
        **_encoder(system),
        **_decoder(system),
        "qkv_bias": True,
        "num_frames": system.input(system.input_name).size[0],
        "tubelet_size": system.encoder.patch_size[0],
        "use_mean_pooling": False,  # with it there would be no norm after the encoder
    }


def _beit(system: Any) -> dict[str, Any]:
    encoder, data = system.encoder, system.input(system.input_name)
    size, patch = tuple(data.size), tuple(encoder.patch_size)
    if len(set(size)) > 1 or len(set(patch)) > 1:
        raise UserError(
            f"BEiT of transformers takes square images and patches, not {size} and {patch}."
        )
    if encoder.bias != "qv":
        raise UserError(
            "BEiT of transformers has a bias for query and value, not for the key: this encoder "
            f"has bias='{encoder.bias}'."
        )
    return {
        "model_type": "beit",
        **_encoder(system),
        "use_mask_token": encoder.mask_token,
        "use_absolute_position_embeddings": encoder.positions != "none",
        "use_shared_relative_position_bias": encoder.relative_bias,
        "use_relative_position_bias": encoder.block_bias,
        "layer_scale_init_value": encoder.layer_scale or 0.0,
        "drop_path_rate": encoder.drop_path,
    }


def _beit_masked(system: Any) -> dict[str, Any]:
    # With use_mean_pooling the encoder itself has no norm: that of the whole model is ours.
    return {
        "architectures": ["BeitForMaskedImageModeling"],
        **_beit(system),
        "use_mean_pooling": True,
        "vocab_size": system.shapes["params"]["decoder"]["linear"]["kernel"].shape[-1],
    }


def _beit_model(system: Any) -> dict[str, Any]:
    return {"architectures": ["BeitModel"], **_beit(system), "use_mean_pooling": False}


_CONFIGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "vit_mae": _vit_mae,
    "vit": _vit,
    "videomae": _videomae,
    "beit": _beit_masked,
    "beit_model": _beit_model,
}


def _preprocessor(system: Any) -> dict[str, Any]:
    data = system.input(system.input_name)
    height, width = tuple(data.size)[-2:]
    video = len(data.size) == 3
    return {
        "image_processor_type": "VideoMAEImageProcessor" if video else "ViTImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
        "do_resize": True,
        "resample": _BICUBIC,
        "size": {"height": height, "width": width},
    }


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2) + "\n"
