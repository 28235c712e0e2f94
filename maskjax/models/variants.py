"""The published sizes of vision transformers, in one place."""

from typing import Any

from maskjax.errors import UserError

# name: (width, depth, heads, MLP ratio). Dosovitskiy et al. 2021; Touvron et al. 2021 (Ti, S);
# Zhai et al. 2022 (g, whose MLP is 6144 wide).
_SIZES = {
    "Ti": (192, 12, 3, 4.0),
    "S": (384, 12, 6, 4.0),
    "B": (768, 12, 12, 4.0),
    "L": (1024, 24, 16, 4.0),
    "H": (1280, 32, 16, 4.0),
    "g": (1408, 40, 16, 6144 / 1408),
}


def vit_variant(name: str) -> dict[str, Any]:
    """Returns the arguments of `models.ViT` for a name such as "B/16": size / patch in pixels.

    Raises:
      UserError: the name is not `SIZE/PATCH` with a known size.
    """
    size, _, patch = name.partition("/")
    if size not in _SIZES or not patch.isdigit() or int(patch) < 1:
        raise UserError(
            f"There is no ViT variant '{name}': write SIZE/PATCH, e.g. B/16, with a size out of "
            f"{', '.join(_SIZES)}."
        )
    width, depth, heads, mlp_ratio = _SIZES[size]
    return dict(
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        patch_size=(int(patch), int(patch)),
    )
