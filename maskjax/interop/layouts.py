"""How other programs name and lay out the weights of the networks that maskjax has, both ways.

A layout is a table. Each row says what a module (or a single array) is called elsewhere, and which
of a few kinds it is; a kind knows how to turn an array round, either way. Nothing here depends on
sizes, so a layout holds for every network of its family.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

Extent = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A module or an array here and elsewhere.

    Attributes:
      path: here, e.g. "encoder/stack/blocks/mlp/up"; under `blocks` arrays are stacked by block.
      name: there; "{i}" is the number of the block.
      kind: a name of `KINDS`.
      part: (k, n) if the array here is the k-th of n equal parts, along the first axis, of the one
        there, as query, key and value often are.
    """

    path: str
    name: str
    kind: str
    part: tuple[int, int] = (0, 1)


@dataclasses.dataclass(frozen=True)
class Positions:
    """A table of positions elsewhere.

    Attributes:
      network: whose it is here, "encoder" or "decoder".
      name: there, [1, N, D] or [1, 1 + N, D].
      class_token: whether it has a row for the class token, which is first. It is added to the
        class token here, since nothing but their sum is ever seen.
    """

    network: str
    name: str
    class_token: bool = True


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of one family of models.

    Attributes:
      rows: see `Row`.
      positions: see `Positions`.
      aliases: {beginning of a name in some files: the same as the rows have it}.
      unused: beginnings of names that have no counterpart here and may be left out.
    """

    rows: tuple[Row, ...]
    positions: tuple[Positions, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the layout describes, e.g. ("encoder", "decoder")."""
        return tuple(dict.fromkeys(row.path.split("/")[0] for row in self.rows))

    @functools.cached_property
    def _by_path(self) -> dict[str, Row]:
        return {row.path: row for row in self.rows}

    def find(self, path: str) -> tuple[Row, str] | None:
        """Returns the row of an array here, and its name there; None: it has no place."""
        rows = self._by_path
        if path in rows:
            return rows[path], rows[path].name
        module, _, leaf = path.rpartition("/")
        suffix = {"kernel": "weight", "scale": "weight", "bias": "bias"}.get(leaf)
        if module not in rows or suffix is None:
            return None
        return rows[module], f"{rows[module].name}.{suffix}"


def _same(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x


def _matrix(x: np.ndarray, extent: Extent) -> np.ndarray:
    """[in, out] and [out, in]; biases and norms stay."""
    del extent
    return x.T if x.ndim == 2 else x


def _from_convolution(x: np.ndarray, extent: Extent) -> np.ndarray:
    """[D, C, *patch] -> [prod(patch) * C, D], channel fastest; a bias stays."""
    del extent
    return x if x.ndim == 1 else np.moveaxis(x, (0, 1), (-1, -2)).reshape(-1, x.shape[0])


def _to_convolution(x: np.ndarray, extent: Extent) -> np.ndarray:
    """Inverts `_from_convolution` for patches of `extent`."""
    if x.ndim == 1:
        return x
    return np.moveaxis(x.reshape(*extent, -1, x.shape[-1]), (-1, -2), (0, 1))


def _flat(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x.reshape(-1)


def _token(x: np.ndarray, extent: Extent) -> np.ndarray:
    del extent
    return x.reshape(1, 1, -1)


Turn = Callable[[np.ndarray, Extent], np.ndarray]

# By kind: from there, and back. Both get the array and the extent of a patch.
KINDS: dict[str, tuple[Turn, Turn]] = {
    "dense": (_matrix, _matrix),
    "norm": (_same, _same),
    "array": (_same, _same),
    "patches": (_from_convolution, _to_convolution),
    "token": (_flat, _token),  # [D] here, [1, 1, D] there
}


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
        kind = "array" if path.endswith(("/bias", "/scale")) else kind
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

# `timm` and the originals of MAE: names of Facebook Research; the others: Hugging Face's models of
# that name, as `save_pretrained` writes them.
LAYOUTS: dict[str, Layout] = {
    "mae": _MAE,
    "timm": Layout(
        tuple(_timm_encoder()),
        (Positions("encoder", "pos_embed"),),
        aliases={"fc_norm.": "norm."},
        unused=("head.",),
    ),
    "vit_mae": _VIT_MAE,
    "vit": Layout(
        tuple(_huggingface_encoder("", _HUGGINGFACE)),
        (Positions("encoder", "embeddings.position_embeddings"),),
        aliases={"vit.": ""},
        unused=("pooler.", "classifier."),
    ),
    "ijepa": Layout(
        tuple(_huggingface_encoder("", _HUGGINGFACE, cls=False)),
        (Positions("encoder", "embeddings.position_embeddings", class_token=False),),
        aliases={"ijepa.": ""},
        unused=("pooler.", "classifier."),
    ),
    "dinov2": Layout(
        tuple(_huggingface_encoder("", _DINOV2)),
        (Positions("encoder", "embeddings.position_embeddings"),),
        aliases={"dinov2.": ""},
        unused=("embeddings.mask_token", "classifier."),
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
