"""What training, evaluation and export need of a method."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from maskjax.objectives import Term, TermValue

Variables = dict[str, Any]  # {"params": trained by gradients, ...}
Batch = Mapping[str, jax.Array]
Masks = dict[str, Any]  # modality -> Mask


class System(Protocol):
    """One published method. All methods but `check` are pure and jittable."""

    terms: Mapping[str, Term]

    def check(self) -> None:
        """Raises a UserError if the parts do not fit each other or the data."""
        ...

    def init(self, rng: jax.Array) -> Variables:
        """Returns freshly initialised variables."""
        ...

    def sample_masks(
        self, rng: jax.Array, variables: Variables, batch: Batch, progress: jax.Array | float
    ) -> Masks:
        """Draws the masks of a batch; `progress` is the share of the training that is done."""
        ...

    def forward(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Mapping[str, jax.Array]
    ) -> dict[str, Any]:
        """Runs everything that the terms may read and returns it, nested and named."""
        ...

    def term_values(
        self, variables: Variables, batch: Batch, masks: Masks, rngs: Mapping[str, jax.Array]
    ) -> dict[str, TermValue]:
        """Returns the value of every term, not yet divided by its count."""
        ...

    def encode(self, variables: Variables, batch: Batch) -> dict[str, Any]:
        """Encodes without any mask, tokens in raster order: what probes and users read, by path."""
        ...

    def reconstruct(self, variables: Variables, batch: Batch, masks: Masks) -> dict[str, jax.Array]:
        """Returns pictures by title, float32 [B, H, W, C] in [0, 1], in the order of a sheet."""
        ...

    def picture_note(self) -> str:
        """Says in one sentence what the pictures of `reconstruct` show and what they owe to."""
        ...
