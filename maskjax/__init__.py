"""maskjax: masked autoencoders and their kin, in JAX, from two CPU cores to a TPU pod."""

__version__ = "0.1.0"
