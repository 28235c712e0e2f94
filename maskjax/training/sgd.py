"""SGD with momentum, which trains heads on frozen features."""

import dataclasses
import functools

import optax

from maskjax.training.optimizers import decays


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov's momentum, as CAE trains its attentive probe.

    v <- momentum v + g, and the parameters move by the learning rate times g + momentum v; without
    `nesterov` times v (Sutskever et al., 2013). The rate is applied behind the momentum, as in
    `optax.sgd` and PyTorch.

    Attributes:
      momentum: of the sum of gradients.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: added to the gradient as this times the parameters.
      no_decay: regular expressions; a parameter whose path one of them finds is not decayed.
    """

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = (r"(^|/)bias$", r"(^|/)scale$")

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Returns gradients -> direction of descent; an update is minus learning rate times it."""
        del total_steps

        decayed = functools.partial(decays, no_decay=self.no_decay)
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, decayed),
            optax.trace(self.momentum, self.nesterov),
        )
