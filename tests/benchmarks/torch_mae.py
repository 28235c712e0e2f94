"""A plain MAE in PyTorch, as a yardstick of speed: the shapes of `configs/mae.py`, nothing else.

Attention is `scaled_dot_product_attention`, the three projections are one matrix, only visible
patches are encoded; positions are fixed. What costs no time (initialisation, schedules) is missing.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.out(y.transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class MAE(nn.Module):
    """Images [B, 3, H, W] -> loss on masked patches, normalised one by one."""

    def __init__(
        self,
        size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        self.patch, self.tokens = patch, (size // patch) ** 2
        self.kept = self.tokens // 4
        self.embed = nn.Linear(3 * patch**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_width, decoder_heads) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.head = nn.Linear(decoder_width, 3 * patch**2)
        self.register_buffer("positions", torch.randn(1, self.tokens, width))
        self.register_buffer("decoder_positions", torch.randn(1, self.tokens + 1, decoder_width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        b, n = len(images), self.tokens
        side = images.shape[-1] // self.patch
        patches = images.reshape(b, 3, side, self.patch, side, self.patch)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(b, n, -1)
        order = torch.rand(b, n, device=images.device).argsort(dim=1)
        restore, visible = order.argsort(dim=1), order[:, : self.kept, None]
        shown = torch.gather(patches, 1, visible.expand(-1, -1, patches.shape[-1]))
        positions = self.positions.expand(b, -1, -1)
        x = self.embed(shown) + torch.gather(
            positions, 1, visible.expand(-1, -1, positions.shape[-1])
        )
        x = torch.cat([self.cls.expand(b, -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        filled = torch.cat([x[:, 1:], self.mask_token.expand(b, n - self.kept, -1)], dim=1)
        filled = torch.gather(filled, 1, restore[:, :, None].expand(-1, -1, filled.shape[-1]))
        x = torch.cat([x[:, :1], filled], dim=1) + self.decoder_positions
        for block in self.decoder_blocks:
            x = block(x)
        prediction = self.head(self.decoder_norm(x)[:, 1:])
        target = (patches - patches.mean(-1, keepdim=True)) / (
            patches.var(-1, keepdim=True) + 1e-6
        ).sqrt()
        masked = (restore >= self.kept).float()
        return (((prediction - target) ** 2).mean(-1) * masked).sum() / masked.sum()
