"""Generation: iterative parallel decoding of codes, and the reverse process of a diffusion.

Both are one loop of static length, to be jitted as a whole. The network comes as a function.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from maskjax.errors import UserError
from maskjax.masking.ratio_schedules import mask_ratio
from maskjax.objectives.diffusion import NoiseSchedule


def choose_hidden(
    probabilities: jax.Array, hidden: jax.Array, temperature: jax.Array | float, gumbel: jax.Array
) -> jax.Array:
    """Chooses the least confident tokens (MaskGIT: Chang et al., 2022, section 3.2).

    Confidence is log p + temperature * gumbel. Hidden are the tokens strictly below the m-th
    smallest, counted from 0: m of them, if no two are equal.

    Args:
      probabilities: [B, N], of the tokens sampled; inf where a token must stay.
      hidden: int [B], m, less than N.
      temperature: of the noise, not of the probabilities.
      gumbel: [B, N], standard Gumbel noise.

    Returns:
      bool [B, N].
    """
    confidence = jnp.log(probabilities) + temperature * gumbel
    cut = jnp.take_along_axis(jnp.sort(confidence, axis=-1), hidden[:, None], axis=-1)
    return confidence < cut


def decode_step(
    logits: jax.Array,
    ids: jax.Array,
    mask_id: int,
    hidden: jax.Array,
    temperature: jax.Array | float,
    sampling_gumbel: jax.Array,
    choice_gumbel: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Samples all hidden tokens and hides the least confident of them again.

    Args:
      logits: float32 [B, N, V].
      ids: int [B, N], `mask_id` where hidden.
      mask_id: not in [0, V).
      hidden: int [B], how many to hide again.
      temperature: of the choice.
      sampling_gumbel: [B, N, V]; the token sampled is argmax(logits + this).
      choice_gumbel: [B, N].

    Returns:
      ids with every token known, and with `mask_id` where hidden again.
    """
    unknown = ids == mask_id
    sampled = jnp.argmax(logits + sampling_gumbel, axis=-1).astype(ids.dtype)
    sampled = jnp.where(unknown, sampled, ids)
    # A known token may be no entry of the logits at all; its probability is not read.
    entry = jnp.clip(sampled, 0, logits.shape[-1] - 1)[:, :, None]
    chosen = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), entry, axis=-1)[:, :, 0]
    chosen = jnp.where(unknown, chosen, jnp.inf)
    again = choose_hidden(chosen, hidden, temperature, choice_gumbel)
    return sampled, jnp.where(again, mask_id, sampled)


@dataclasses.dataclass(frozen=True)
class ParallelDecoding:
    """Iterative parallel decoding with classifier-free guidance.

    Attributes:
      steps: T, evaluations of the network.
      schedule: gamma; after step t the share gamma(t / T) of the tokens is hidden again.
      exponent: of the schedule "pow".
      temperature: of the Gumbel noise in the choice; it falls linearly to 0 at the last step.
      guidance: g; logits are c + g (c - u), c with the class and u without it. 0: none.
      rising: whether guidance rises linearly, from 0 at the first step to g at the last (Chang et
        al., 2023, Muse) instead of being g throughout.
    """

    steps: int = 8
    schedule: str = "cosine"
    exponent: float = 2.0
    temperature: float = 4.5
    guidance: float = 0.0
    rising: bool = False

    def __post_init__(self) -> None:
        mask_ratio(self.schedule, 0.5, exponent=self.exponent)  # refuses unknown names
        if self.steps < 1:
            raise UserError(f"Decoding takes {self.steps} steps: give at least one.")
        if self.temperature < 0 or self.guidance < 0:
            raise UserError(
                f"Decoding has the temperature {self.temperature} and the guidance "
                f"{self.guidance}: neither can be negative."
            )

    def guide(
        self, conditional: jax.Array, unconditional: jax.Array, step: jax.Array | int
    ) -> jax.Array:
        """Moves logits away from those without the class, at a step of 0 .. T - 1."""
        strength = self.guidance
        if self.rising:
            strength = strength * step / max(self.steps - 1, 1)
        return conditional + strength * (conditional - unconditional)

    def __call__(
        self,
        logits_of: Callable[[jax.Array, jax.Array], jax.Array],
        ids: jax.Array,
        mask_id: int,
        rng: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Fills the hidden tokens in.

        Args:
          logits_of: (ids [B, N] with `mask_id` where hidden, step) -> [B, N, V].
          ids: int32 [B, N]; all hidden to generate from nothing, some known to edit.
          mask_id: not in [0, V).
          rng: a key.

        Returns:
          ids int32 [B, N], and [T, B, N]: those of every step, before tokens were hidden again.
        """
        before = (ids == mask_id).sum(axis=-1, dtype=jnp.int32)
        n = ids.shape[-1]

        def step(ids: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_of(ids, t).astype(jnp.float32)
            done = (t + 1) / self.steps
            share = mask_ratio(self.schedule, done, n, self.exponent)
            hidden = hidden_again(before, ids == mask_id, share)
            sampling, choice = jax.random.split(jax.random.fold_in(rng, t))
            sampled, ids = decode_step(
                logits,
                ids,
                mask_id,
                hidden,
                self.temperature * (1.0 - done),
                jax.random.gumbel(sampling, logits.shape),
                jax.random.gumbel(choice, (ids.shape[0], n)),
            )
            return ids, sampled

        # The last step hides a token again; what was sampled before that is the result.
        _, history = jax.lax.scan(step, ids, jnp.arange(self.steps))
        return history[-1], history


def hidden_again(before: jax.Array, unknown: jax.Array, share: jax.Array | float) -> jax.Array:
    """Returns how many tokens to hide after a step: int32 [B].

    It is floor(before * share), but at least one, and fewer than were hidden.

    Args:
      before: int [B], tokens hidden at the start of the decoding.
      unknown: bool [B, N], where they are hidden now.
      share: gamma((t + 1) / T).
    """
    wanted = jnp.floor(before * share).astype(jnp.int32)
    now = unknown.sum(axis=-1, dtype=jnp.int32)
    return jnp.maximum(jnp.minimum(wanted, now - 1), 1)


@dataclasses.dataclass(frozen=True)
class DDIM:
    """The reverse process (Song et al., 2021, equation 12).

    Attributes:
      steps: about this many evaluations of the network: times go from the last down to 0 in
        strides of floor(T / steps).
      eta: 0: deterministic; 1: as much noise as DDPM has.
      clip: bound of the predicted data's absolute values; None: no bound.
      guidance: s; noise is u + s (c - u), c with the class and u without. 1: none.
    """

    steps: int = 125
    eta: float = 1.0
    clip: float | None = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"Sampling takes {self.steps} steps: give at least one.")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta of the sampling is {self.eta}: it has to be in [0, 1].")

    def times(self, schedule: NoiseSchedule) -> np.ndarray:
        """Returns the times that the network is evaluated at, falling, the last of them 0.

        Raises:
          UserError: more steps than the schedule has.
        """
        if self.steps > schedule.steps:
            raise UserError(
                f"Sampling takes {self.steps} steps, more than the {schedule.steps} of the noise "
                "schedule: reduce system.sampler.steps."
            )
        return np.append(np.arange(schedule.steps - 1, 0, -(schedule.steps // self.steps)), 0)

    def __call__(
        self,
        noise_of: Callable[[jax.Array, jax.Array], jax.Array],
        x: jax.Array,
        schedule: NoiseSchedule,
        rng: jax.Array,
    ) -> jax.Array:
        """Turns noise into data.

        Args:
          noise_of: (x_t, t int []) -> the noise predicted, of the shape of x_t.
          x: float32, standard normal, of any shape.
          schedule: the one trained with.
          rng: a key.

        Returns:
          The data predicted at time 0, of the shape of x.
        """
        times = self.times(schedule)
        levels = schedule.levels[times]
        # Beyond time 0 there is no noise: the last step returns the predicted data themselves.
        following = np.append(levels[1:], 1.0)
        spread = self.eta * np.sqrt((1 - following) / (1 - levels) * (1 - levels / following))
        rest = np.sqrt(np.maximum(1 - following - spread**2, 0.0))

        def step(x: jax.Array, each: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            t, level, following, spread, rest = each
            clean = (x - jnp.sqrt(1 - level) * noise_of(x, t)) / jnp.sqrt(level)
            if self.clip is not None:
                clean = jnp.clip(clean, -self.clip, self.clip)
            # Of the data that were clipped the noise is another one.
            noise = (x - jnp.sqrt(level) * clean) / jnp.sqrt(1 - level)
            fresh = jax.random.normal(jax.random.fold_in(rng, t), x.shape, x.dtype)
            return jnp.sqrt(following) * clean + rest * noise + spread * fresh, None

        tables = (jnp.asarray(v, jnp.float32) for v in (levels, following, spread, rest))
        return jax.lax.scan(step, x, (jnp.asarray(times, jnp.int32), *tables))[0]
