"""The module: token ids and a mask in, one vector of length 1 out."""

import math

import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    """Self-attention and two linear layers, each normalised first and added to what came in."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Hidden states to hidden states; `bias` is added to the attention of every query."""
        rows, length, hidden = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, hidden))
        y: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return y


class Encoder(nn.Module):
    """Token ids and mask [n, length] to embeddings [n, hidden].

    Where the mask is 0 there is padding, wherever it stands: no token sees it, it takes no
    position, and the pooled mean leaves it out.  A row of nothing but padding becomes zeros.
    """

    frequencies: torch.Tensor

    def __init__(
        self, vocabulary: int = 8192, hidden: int = 384, layers: int = 6, heads: int = 6
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        pairs = torch.arange(0, hidden, 2, dtype=torch.float32)
        self.register_buffer("frequencies", torch.exp(pairs * (-math.log(10000.0) / hidden)))

    def forward(self, token_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens that the mask keeps, scaled to length 1."""
        keep = mask != 0
        # Padding may hold any number, also one that is no token.
        x = self.tokens(token_ids.masked_fill(keep.logical_not(), 0))
        x = x + self._positions(keep)
        # Low enough to become exactly 0 in the softmax; not -inf, which makes NaN of an empty row.
        bias = keep.logical_not().to(x.dtype)[:, None, None, :] * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        kept = keep.to(x.dtype).unsqueeze(-1)
        mean = (self.norm(x) * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)
        return functional.normalize(mean, dim=-1)

    def _positions(self, keep: torch.Tensor) -> torch.Tensor:
        """Sines and cosines of each token's place among those that are kept."""
        place = (keep.long().cumsum(dim=1) - 1).clamp(min=0).to(self.frequencies.dtype)
        angles = place.unsqueeze(-1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
