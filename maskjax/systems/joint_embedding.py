"""Joint-embedding prediction: features of hidden blocks from those of a context (I-JEPA).

Assran et al., CVPR 2023, arXiv 2301.08243. No pixel is predicted: the target is what an averaged
copy of the encoder makes of the whole input, so nothing but the setup (a predictor on one side, a
slow teacher on the other) keeps all features from becoming equal. Watch `FeatureSpread`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.masking import BlockMasks, MultiBlock
from maskjax.systems.system import Batch, Masks, Rngs, System, Variables
from maskjax.systems.teacher import Momentum, ema_update
from maskjax.targets.features import NORMALISERS, check_normaliser
from maskjax.tokens import TokenGrid, patchify, take_tokens, unpatchify

_GREY = 0.5  # what stands for tokens that are not shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointEmbedding(System):
    """Predicts the features of target blocks from a context block.

    Attributes:
      input_name: which of `inputs`.
      encoder: a module with `patch_size`, called as `models.ViT`, without class token. The context
        goes through it, and everything through an averaged copy of it.
      predictor: a module called as `models.Predictor`.
      mask: the sampler of context and targets.
      momentum: of the averaged copy.
      normalise: what is done to the features of each target token, see `targets.features`.
    """

    input_name: str = "image"
    encoder: nn.Module
    predictor: nn.Module
    mask: MultiBlock
    momentum: Momentum
    normalise: str | None = "layer_norm"

    titles = ("original", "context", "targets")
    shows_predictions = False

    @property
    def grid(self) -> TokenGrid:
        """Geometry of the inputs that the system is trained on."""
        data = self.input(self.input_name)
        return TokenGrid.of(data.size, self.encoder.patch_size, data.channels)

    def check(self) -> None:
        """Raises a UserError if input, patch, mask and terms do not fit."""
        self.mask.check(self.grid)
        check_normaliser(self.normalise)
        super().check()
        self.check_terms()

    def init(self, rng: jax.Array) -> Variables:
        """Returns {"params": {"encoder", "predictor"}, "teacher": {"average": {"encoder"}}}."""
        grid = self.grid
        encoder_rng, predictor_rng, mask_rng = jax.random.split(rng, 3)
        patches = jnp.zeros((1, grid.num_tokens, grid.values_per_token))
        masks = self.mask(mask_rng, 1, grid)
        encoded, encoder = self.encoder.init_with_output(encoder_rng, patches, grid, masks.visible)
        arguments = self._predictor_arguments(encoded["patches"], masks)
        predictor = self.predictor.init(predictor_rng, *arguments)
        return {
            "params": {"encoder": encoder["params"], "predictor": predictor["params"]},
            "teacher": {"average": {"encoder": encoder["params"]}},
        }

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float = 0.0
    ) -> Masks:
        """Draws {input name: BlockMasks}."""
        del variables
        batch_size = batch[self.input_name].shape[0]
        return {self.input_name: self.mask(rng, batch_size, self.grid, progress=progress)}

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Rngs | None = None
    ) -> dict[str, Any]:
        """Returns `patches`, `masks`, `encoder` (of the context), `predictor`, `teachers.average`.

        `targets.features` are the normalised features of all tokens, [B, N, D], `targets.blocks`
        those of the target blocks, [B, T, M, D], as is `predictor.prediction`.
        """
        grid, chosen, params = self.grid, masks[self.input_name], variables["params"]
        patches = patchify(self.input(self.input_name).normalise(batch[self.input_name]), grid)
        dropout = {"dropout": rngs["dropout"]} if rngs else None
        encoder = {"params": params["encoder"]}
        context: Any = self.encoder.apply(encoder, patches, grid, chosen.visible, rngs=dropout)
        arguments = self._predictor_arguments(context["patches"], chosen)
        predicted = self.predictor.apply({"params": params["predictor"]}, *arguments)

        average = {"params": variables["teacher"]["average"]["encoder"]}
        whole: Any = jax.lax.stop_gradient(self.encoder.apply(average, patches, grid))
        features = NORMALISERS[self.normalise](whole["patches"].astype(jnp.float32))
        b, t, m = chosen.targets.shape
        blocks = take_tokens(features, chosen.targets.reshape(b, t * m)).reshape(b, t, m, -1)
        return {
            "patches": patches,
            "masks": masks,
            "encoder": context,
            "predictor": predicted,
            "teachers": {"average": {"encoder": whole}},
            "targets": {"features": features, "blocks": blocks},
        }

    def update(self, variables: Variables, progress: jax.Array) -> Variables:
        """Moves the averaged encoder."""
        teacher, decay = variables["teacher"], self.momentum(progress)
        average = ema_update(teacher["average"], variables["params"], decay)
        return {**variables, "teacher": {**teacher, "average": average}}

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes whole inputs, also of other sizes than trained on (positions are resized).

        `teachers.average.encoder` is what the averaged encoder makes of them, which the paper
        evaluates; `encoder` what the trained one does.
        """
        view = self.input(self.input_name).normalise(batch[self.input_name])
        grid = TokenGrid.of(view.shape[1:-1], self.encoder.patch_size, view.shape[-1])
        patches = patchify(view, grid)
        both = {
            "encoder": variables["params"]["encoder"],
            "average": variables["teacher"]["average"]["encoder"],
        }
        out = {
            name: self.encoder.apply({"params": params}, patches, grid, trained=self.grid)
            for name, params in both.items()
        }
        return {"encoder": out["encoder"], "teachers": {"average": {"encoder": out["average"]}}}

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns the input, what the context shows of it, and what the targets cover."""
        del variables
        data, chosen = self.input(self.input_name), masks[self.input_name]
        view = data.normalise(batch[self.input_name])
        original = jnp.clip(data.denormalise(view), 0.0, 1.0)
        b, t, m = chosen.targets.shape
        lists = {
            "context": (chosen.context, chosen.context_weight),
            "targets": (chosen.targets.reshape(b, t * m), chosen.target_weight.reshape(b, t * m)),
        }
        pictures = {"original": original}
        for name, (indices, weights) in lists.items():
            shown = jnp.zeros((b, self.grid.num_tokens))
            shown = shown.at[jnp.arange(b)[:, None], indices].max(weights)
            shape = (*shown.shape, self.grid.values_per_token)
            shown = unpatchify(jnp.broadcast_to(shown[:, :, None], shape), self.grid)
            pictures[name] = jnp.where(shown > 0, original, _GREY)
        return pictures

    def picture_note(self) -> str:
        """Says that there is nothing predicted to see."""
        return (
            "What this method predicts is no picture: shown are the context that the encoder sees "
            "and the target blocks whose features it predicts."
        )

    def _predictor_arguments(self, tokens: jax.Array, masks: BlockMasks) -> tuple[Any, ...]:
        weights = masks.context_weight, masks.target_weight
        return tokens, masks.context, masks.targets, self.grid, tokens.shape[-1], *weights
