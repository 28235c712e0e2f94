"""Pretrains a small masked autoencoder on handwritten digits, on a laptop, without a download.

    python -m maskjax.train --config=configs/quickstart.py --workdir=runs/quickstart

1,442 training and 355 test images of 8 x 8 pixels, which ship with scikit-learn.
"""

from maskjax.config import ConfigDict, default_config, part
from maskjax.data_sections import use_digits


def get_config() -> ConfigDict:
    """Returns the configuration."""
    c = default_config()
    c.name = "quickstart"

    # Without shifts: in so small an image a pixel to the side is half the shape of a digit.
    use_digits(c)

    # Patches of 2 x 4 pixels: 8 tokens, so that a step is a matter of milliseconds.
    c.system.encoder = part("models.ViT", patch_size=(2, 4), width=96, depth=2, heads=2)
    c.system.decoder = part("models.MAEDecoder", width=32, depth=2, heads=2)

    # An image of so few patches says too little if three quarters of them are hidden.
    c.system.mask.ratio = 0.5

    # Raw pixels: in patches of eight values, normalisation would keep little but noise.
    c.system.targets = dict(pixels=part("targets.Pixels"))

    c.train.duration = "100 epochs"
    c.train.batch_size = 64
    c.parallel.keep_memory = False  # steps so short gain more by running beside the reading
    c.schedule = part("training.WarmupCosine", base_lr=3e-3, reference_batch=0, warmup="5 percent")
    c.checkpoint.every = "25 epochs"
    c.log.every = "5 epochs"
    return c
