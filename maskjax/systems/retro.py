"""RetroMAE and DupMAE: one vector has to say everything about a text (Xiao et al., 2022).

`MaskedAutoencoder` cannot say it: one text has two masks (a light one for the encoder, and an
attention mask for every row of the decoder), the decoder reads original tokens through the tables
of the encoder, and its queries and keys are two different streams.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.data import Text
from maskjax.errors import UserError
from maskjax.masking import EnhancedDecoding, WholeWords, find_words
from maskjax.models.layers import unit_vectors
from maskjax.objectives.bag_of_words import bag_of_words
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.tokens import take_tokens

# Added to the logits of padding before the maximum over places, as in the reference.
_NEVER = -1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetroMAE(System):
    """A text encoder whose class token alone carries the text to a one-layer decoder.

    Attributes:
      encoder: a module called as `models.BERT`.
      decoder: a module called as `models.PostNormBlock`.
      mask: what the encoder does not see, `masking.WholeWords`.
      decoder_mask: what the rows of the decoder do not see, `masking.EnhancedDecoding`.
      duplex: DupMAE (RetroMAE v2; Liu et al., 2023): the queries of the decoder pass through the
        norm of the embedding, and the ordinary tokens predict a bag of words: `encoder.bag` [B, V],
        the largest logit over the places of the masked text, against `targets.bag`.
      aggregate: with `duplex`, how many of the words of `encoder.bag` are kept in
        `encoder.aggregate`.
      input_name: of the text in `data.inputs`.
    """

    encoder: nn.Module
    decoder: nn.Module
    mask: WholeWords
    decoder_mask: EnhancedDecoding
    duplex: bool = False
    aggregate: int = 64
    input_name: str = "text"

    titles = ("original", "masked", "encoder", "decoder")

    @property
    def view(self) -> str:
        """Reports draw text."""
        return "text"

    @property
    def text(self) -> Text:
        """The input that is trained on."""
        return cast(Text, self.input(self.input_name))  # `check` refuses others

    def check(self) -> None:
        """Raises a UserError if the input is no text or has no class token, or sizes do not fit."""
        if self.text.view != "text":
            raise UserError(
                f"RetroMAE encodes text, but data.inputs.{self.input_name} is of another kind: use "
                "data.Text."
            )
        if self.text.cls_token is None:
            raise UserError(
                "RetroMAE needs a token that stands for the whole text: set cls_token of "
                f"data.inputs.{self.input_name}."
            )
        size = self._encoder.vocabulary
        for name, each in self._texts.items():
            if size < each.vocabulary_size:
                raise UserError(
                    f"system.encoder.vocabulary is {size}, but the tokenizer of data.inputs.{name} "
                    f"has {each.vocabulary_size} tokens."
                )
        if not 0 < self.aggregate <= size:
            raise UserError(
                f"system.aggregate is {self.aggregate}: it has to be from 1 to the size of the "
                f"vocabulary, {size}."
            )
        super().check()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder": with tables and head, "decoder": one block}}."""
        encoder_rng, decoder_rng = jax.random.split(rng)
        ids = jnp.zeros((1, self.text.length), jnp.int32)
        encoder = self._encoder.init(encoder_rng, ids, ids == 0, method="initialise")
        tokens = jnp.zeros((1, 1, self._encoder.width))
        decoder = self.decoder.init(decoder_rng, tokens, tokens)
        return {"params": {"encoder": encoder["params"], "decoder": decoder["params"]}}

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {"encoder": WordMask, "decoder": AttentionMask}."""
        del variables, progress
        encoder_rng, decoder_rng = jax.random.split(rng)
        text, ids = self.text, batch[self.input_name]
        table = text.vocabulary
        words = find_words(ids, text.special, text.pad, table.joins_left, table.joins_right)
        return {
            "encoder": self.mask(encoder_rng, ids, words, text.mask, text.vocabulary_size),
            "decoder": self.decoder_mask(decoder_rng, words),
        }

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `encoder.*`, `decoder.*`, `masks.*` and `targets.*`.

        `encoder` has the outputs of the network and `logits` [B, K, V] at the masked places;
        `decoder` has `queries`, `context` and `tokens` [B, L, D], and `logits` [B, L, V]; `targets`
        has `masked` [B, K], the ids at these places, `text` [B, L], all ids, and `predicted`
        [B, L], which of them the decoder predicts: all but the first and last token and padding.
        """
        text, ids, mask = self.text, batch[self.input_name], masks["encoder"]
        keys = (None,) * 4
        if rngs is not None and "dropout" in rngs:
            keys = jax.random.split(rngs["dropout"], 4)
        real = ids != text.pad
        encoded = self._run(variables, None, mask.inputs, real, keys[0])
        encoded["logits"] = self._run(
            variables, "logits", take_tokens(encoded["tokens"], mask.indices)
        )
        # The last token is [SEP] also where padding follows.
        special = (ids[:, :, None] == jnp.asarray(text.special)[None, None, :]).any(axis=-1)
        targets = {
            "masked": take_tokens(ids, mask.indices),
            "text": ids,
            "predicted": real & ~special,
        }
        if self.duplex:
            encoded["bag"] = self._bag(variables, encoded["tokens"], real)
            targets["bag"] = bag_of_words(ids, real & ~special, self._encoder.vocabulary)

        sentence = encoded["tokens"][:, :1]
        queries = self._queries(variables, sentence, ids.shape[1], keys[1])
        embedded = self._run(variables, "embed", self._run(variables, "words", ids), keys[2])
        context = jnp.concatenate([sentence, embedded[:, 1:]], axis=1)
        attend = masks["decoder"].attend[:, None, :, :]
        decoded = self.decoder.apply(
            {"params": variables["params"]["decoder"]}, queries, context, attend, keys[3]
        )
        return {
            "masks": masks,
            "encoder": encoded,
            "decoder": {
                "queries": queries,
                "context": context,
                "tokens": decoded,
                "logits": self._run(variables, "logits", decoded),
            },
            "targets": targets,
        }

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes whole texts: `encoder.*`, and every other text of the batch under its own name.

        `cls` [B, D]; `mean` [B, D] over real tokens; with `duplex` also `bag` [B, V] and
        `aggregate` [B, D + V]: the class token, and the bag of which the largest logits are kept,
        each scaled to unit length. Its inner product of two texts is the cosine of their class
        tokens plus that of their words, what DupMAE's fine-tuned retrieval adds up as well.
        """
        return {
            "encoder" if name == self.input_name else name: self._encoded(
                variables, batch[name], each.pad
            )
            for name, each in self._texts.items()
            if name in batch
        }

    @property
    def reads(self) -> tuple[str, ...]:
        """All texts."""
        return tuple(self._texts)

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns ids and marks, int32 [B, L, 2], for `report.views.text`."""
        out = self.forward(variables, batch, masks)
        ids, mask = batch[self.input_name], masks["encoder"]
        rows = jnp.arange(ids.shape[0])[:, None]
        guess = out["encoder"]["logits"].argmax(axis=-1).astype(jnp.int32)
        found = ids.at[rows, mask.indices].set(
            jnp.where(mask.valid, guess, out["targets"]["masked"])
        )
        decoded = out["decoder"]["logits"].argmax(axis=-1).astype(jnp.int32)
        predicted = out["targets"]["predicted"]
        decoded = jnp.where(predicted, decoded, ids)

        def marked(shown: jax.Array, which: jax.Array) -> jax.Array:
            marks = jnp.where(shown == ids, 2, 3)
            return jnp.stack([shown, jnp.where(which, marks, 0)], axis=-1)

        hidden = jnp.where(mask.is_masked, 1, 0)
        return {
            "original": marked(ids, jnp.zeros_like(predicted)),
            "masked": jnp.stack([mask.inputs, hidden], axis=-1),
            "encoder": marked(found, mask.is_masked),
            "decoder": marked(decoded, predicted),
        }

    def picture_note(self) -> str:
        """Says what the decoder's column is."""
        return (
            "The encoder predicts the masked words; the decoder predicts every word from the class "
            "token and a random part of the others. Green is right, red is wrong."
        )

    @property
    def _encoder(self) -> nn.Module:
        """The encoder with as many words as the tokenizer, unless the config says how many."""
        if self.encoder.vocabulary is not None:
            return self.encoder
        return self.encoder.clone(vocabulary=self.text.vocabulary_size)

    @property
    def _texts(self) -> Mapping[str, Text]:
        texts = {name: each for name, each in self.inputs.items() if each.view == "text"}
        return cast(Mapping[str, Text], texts)

    def _run(self, variables: Variables, method: str | None, *arguments: Any) -> Any:
        params = {"params": variables["params"]["encoder"]}
        return self._encoder.apply(params, *arguments, method=method)

    def _queries(
        self, variables: Variables, sentence: jax.Array, length: int, rng: jax.Array | None
    ) -> jax.Array:
        """The class token [B, 1, D] at every place -> [B, L, D]."""
        if self.duplex:
            shape = (sentence.shape[0], length, sentence.shape[2])
            return self._run(variables, "embed", jnp.broadcast_to(sentence, shape), rng)
        places = self._run(variables, "places", length).astype(sentence.dtype)
        return sentence + places[None, :, :]

    def _bag(self, variables: Variables, tokens: jax.Array, real: jax.Array) -> jax.Array:
        """Largest logit of every word over the places but the first, [B, V]."""
        logits = self._run(variables, "logits", tokens[:, 1:])
        return (logits + jnp.where(real[:, 1:, None], 0.0, _NEVER)).max(axis=1)

    def _encoded(self, variables: Variables, ids: jax.Array, pad: int) -> dict[str, Any]:
        real = ids != pad
        out = self._run(variables, None, ids, real)
        if self.duplex:
            out["bag"] = self._bag(variables, out["tokens"], real)
            least = jax.lax.top_k(out["bag"], self.aggregate)[0][:, -1:]
            kept = jnp.where(out["bag"] >= least, jnp.maximum(out["bag"], 0.0), 0.0)
            parts = [unit_vectors(out["cls"]), unit_vectors(kept)]
            out["aggregate"] = jnp.concatenate(parts, axis=-1)
        return out
