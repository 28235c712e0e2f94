"""How other programs name and lay out the weights of the networks that maskjax has, both ways."""

from collections.abc import Mapping

from maskjax.interop.rows import STATISTICS, Layout, Positions, Row


def _blocks(network: str, there: str, names: Mapping[str, str], fused: str | None) -> list[Row]:
    """Returns the rows of a stack of transformer blocks.

    Args:
      network: e.g. "encoder".
      there: how a block is called, e.g. "blocks.{i}".
      names: {path within a block: name within a block}.
      fused: name within a block of query, key and value in one; None: `names` has them.
    """
    here = f"{network}/stack/blocks"
    rows = []
    for path, name in names.items():
        kind = "norm" if path.startswith("norm") else "dense"
        kind = "array" if path.endswith(("/bias", "/scale", "/table")) else kind
        rows.append(Row(f"{here}/{path}", f"{there}.{name}", kind))
    if fused:
        for k, path in enumerate(("query", "key", "value")):
            rows.append(Row(f"{here}/attention/{path}", f"{there}.{fused}", "dense", (k, 3)))
    return rows


_TIMM = {
    "norm1": "norm1",
    "attention/out": "attn.proj",
    "norm2": "norm2",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "scale1/scale": "ls1.gamma",
    "scale2/scale": "ls2.gamma",
}
_HUGGINGFACE = {
    "norm1": "layernorm_before",
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/out": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
}
_DINOV2 = _HUGGINGFACE | {
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "scale1/scale": "layer_scale1.lambda1",
    "scale2/scale": "layer_scale2.lambda1",
}
_VIDEOMAE = _HUGGINGFACE | {
    "attention/query/bias": "attention.attention.q_bias",
    "attention/value/bias": "attention.attention.v_bias",
}


_BEIT = _HUGGINGFACE | {
    "scale1/scale": "lambda_1",
    "scale2/scale": "lambda_2",
    "relative_bias/table": "attention.attention.relative_position_bias."
    "relative_position_bias_table",
}


def _timm_encoder() -> list[Row]:
    return [
        Row("encoder/embed", "patch_embed.proj", "patches"),
        Row("encoder/cls", "cls_token", "token"),
        Row("encoder/norm", "norm", "norm"),
        *_blocks("encoder", "blocks.{i}", _TIMM, "attn.qkv"),
    ]


def _huggingface_encoder(prefix: str, names: Mapping[str, str], cls: bool = True) -> list[Row]:
    rows = [
        Row("encoder/embed", f"{prefix}embeddings.patch_embeddings.projection", "patches"),
        Row("encoder/norm", f"{prefix}layernorm", "norm"),
        *_blocks("encoder", f"{prefix}encoder.layer.{{i}}", names, None),
    ]
    return rows + cls * [Row("encoder/cls", f"{prefix}embeddings.cls_token", "token")]


def _beit_encoder(prefix: str) -> list[Row]:
    """The encoder of BEiT; its last norm has another place in each model."""
    return [
        *(r for r in _huggingface_encoder(prefix, _BEIT) if r.path != "encoder/norm"),
        Row("encoder/mask_token", f"{prefix}embeddings.mask_token", "token"),
        Row(
            "encoder/relative_bias/table",
            f"{prefix}encoder.relative_position_bias.relative_position_bias_table",
            "array",
        ),
    ]


_MAE = Layout(
    (
        *_timm_encoder(),
        Row("decoder/embed", "decoder_embed", "dense"),
        Row("decoder/mask_token", "mask_token", "token"),
        Row("decoder/norm", "decoder_norm", "norm"),
        Row("decoder/head", "decoder_pred", "dense"),
        *_blocks("decoder", "decoder_blocks.{i}", _TIMM, "attn.qkv"),
    ),
    (Positions("encoder", "pos_embed"), Positions("decoder", "decoder_pos_embed")),
)
_VIT_MAE = Layout(
    (
        *_huggingface_encoder("vit.", _HUGGINGFACE),
        Row("decoder/embed", "decoder.decoder_embed", "dense"),
        Row("decoder/mask_token", "decoder.mask_token", "token"),
        Row("decoder/norm", "decoder.decoder_norm", "norm"),
        Row("decoder/head", "decoder.decoder_pred", "dense"),
        *_blocks("decoder", "decoder.decoder_layers.{i}", _HUGGINGFACE, None),
    ),
    (
        Positions("encoder", "vit.embeddings.position_embeddings"),
        Positions("decoder", "decoder.decoder_pos_embed"),
    ),
    aliases={"decoder.decoder_encoder.layer.": "decoder.decoder_layers."},
)


def _point_positions(network: str, there: str) -> list[Row]:
    return [
        Row(f"{network}/positions/up", f"{there}.0", "dense"),
        Row(f"{network}/positions/down", f"{there}.2", "dense"),
    ]


def _point_stage(stage: str) -> list[Row]:
    """One of both stages of the network that embeds a group of points."""
    here, there = f"encoder/embed/{stage}", f"MAE_encoder.encoder.{stage}_conv"
    return [
        Row(f"{here}_up", f"{there}.0", "points"),
        Row(f"{here}_norm", f"{there}.1", "norm"),
        Row(f"{here}_down", f"{there}.3", "points"),
        Row(f"{STATISTICS}/{here}_norm/mean", f"{there}.1.running_mean", "array"),
        Row(f"{STATISTICS}/{here}_norm/var", f"{there}.1.running_var", "array"),
    ]


_POINT_MAE = Layout(
    (
        *_point_stage("first"),
        *_point_stage("second"),
        *_point_positions("encoder", "MAE_encoder.pos_embed"),
        Row("encoder/norm", "MAE_encoder.norm", "norm"),
        *_blocks("encoder", "MAE_encoder.blocks.blocks.{i}", _TIMM, "attn.qkv"),
        Row("decoder/mask_token", "mask_token", "token"),
        *_point_positions("decoder", "decoder_pos_embed"),
        Row("decoder/norm", "MAE_decoder.norm", "norm"),
        *_blocks("decoder", "MAE_decoder.blocks.{i}", _TIMM, "attn.qkv"),
        Row("decoder/head", "increase_dim.0", "points"),
    ),
    unused=("*.num_batches_tracked",),
)

# `mae`, `timm`, `point_mae`: names of the original programs and of timm; the others: of Hugging
# Face's models, as `save_pretrained` writes them.
LAYOUTS: dict[str, Layout] = {
    "mae": _MAE,
    "timm": Layout(
        tuple(_timm_encoder()),
        (Positions("encoder", "pos_embed"),),
        aliases={"fc_norm.": "norm."},
        unused=("head.*",),
    ),
    "point_mae": _POINT_MAE,
    "vit_mae": _VIT_MAE,
    "vit": Layout(
        tuple(_huggingface_encoder("", _HUGGINGFACE)),
        (Positions("encoder", "embeddings.position_embeddings"),),
        aliases={"vit.": ""},
        unused=("pooler.*", "classifier.*"),
    ),
    "ijepa": Layout(
        tuple(_huggingface_encoder("", _HUGGINGFACE, cls=False)),
        (Positions("encoder", "embeddings.position_embeddings", class_token=False),),
        aliases={"ijepa.": ""},
        unused=("pooler.*", "classifier.*"),
    ),
    "dinov2": Layout(
        tuple(_huggingface_encoder("", _DINOV2)),
        (Positions("encoder", "embeddings.position_embeddings"),),
        aliases={"dinov2.": ""},
        unused=("embeddings.mask_token", "classifier.*"),
    ),
    "beit": Layout(
        (
            *_beit_encoder("beit."),
            Row("encoder/norm", "layernorm", "norm"),
            Row("decoder/linear", "lm_head", "dense"),
        ),
        (Positions("encoder", "beit.embeddings.position_embeddings", optional=True),),
        unused=("*.relative_position_index",),
    ),
    "beit_model": Layout(
        (*_beit_encoder(""), Row("encoder/norm", "layernorm", "norm")),
        (Positions("encoder", "embeddings.position_embeddings", optional=True),),
        # After a mean over the tokens there is a norm of the mean instead of one of each token.
        aliases={"beit.": "", "pooler.layernorm.": "layernorm."},
        unused=(
            "embeddings.mask_token",
            "pooler.*",
            "classifier.*",
            "lm_head.*",
            "*.relative_position_index",
        ),
    ),
    "videomae": Layout(
        (
            *_huggingface_encoder("videomae.", _VIDEOMAE, cls=False),
            Row("decoder/embed", "encoder_to_decoder", "dense"),
            Row("decoder/mask_token", "mask_token", "token"),
            Row("decoder/norm", "decoder.norm", "norm"),
            Row("decoder/head", "decoder.head", "dense"),
            *_blocks("decoder", "decoder.decoder_layers.{i}", _VIDEOMAE, None),
        ),
    ),
}
