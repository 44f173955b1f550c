"""A recurrent network that reads an image row by row.

Le, Jaitly, Hinton: A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, 2015.
https://arxiv.org/abs/1504.00941

The paper reads the pixels of MNIST one by one, in 784 steps. Here a step is a row of pixels, so
that an image of 28 pixels takes 28 steps and training takes a minute.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vision_lab.core.arguments import ArgumentError, Count, Fraction, Range, Width

FORGET_BIAS = 1.0
"""Initial bias of forget gates, so that an LSTM remembers at first (Gers 2000)."""


class RowLSTM(nn.Module):
    """Maps (N, channels, H, W) to (N, num_classes) logits, by the last hidden state.

    Args:
        num_classes: number of classes.
        channels: number of image channels.
        image_size: (height, width) of images; the width is fixed.
        cell: ``lstm`` (Hochreiter 1997) or ``gru`` (Cho 2014).
        hidden_size: number of units of each layer.
        num_layers: number of recurrent layers.
        bidirectional: whether rows are also read from the bottom.
        dropout: dropout probability after each layer but the last one.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: Count = 3,
        image_size: tuple[Count, Count] = (28, 28),
        cell: Literal["lstm", "gru"] = "lstm",
        hidden_size: Width = 128,
        num_layers: Annotated[int, Range(ge=1, le=16)] = 1,
        bidirectional: bool = False,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.width = image_size[1]
        make = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = make(
            channels * self.width,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        directions = 2 if bidirectional else 1
        self.fc = nn.Linear(directions * hidden_size, num_classes)
        if isinstance(self.rnn, nn.LSTM):
            self._initialize_forget_gates()

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.width:
            needed = f"images that are {self.width} pixels wide, as in training"
            raise ArgumentError("image_size", list(images.shape[-2:]), needed)
        rows = images.transpose(1, 2).flatten(2)  # (N, H, channels * W)
        outputs, _ = self.rnn(rows)
        if not self.rnn.bidirectional:
            return self.fc(outputs[:, -1])
        size = self.rnn.hidden_size  # each direction has its own last row
        last = [outputs[:, -1, :size], outputs[:, 0, size:]]
        return self.fc(torch.cat(last, dim=1))

    def _initialize_forget_gates(self) -> None:
        """Set the sum of the two biases of each forget gate, the second quarter of the gates."""
        size = self.rnn.hidden_size
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.constant_(parameter[size : 2 * size], FORGET_BIAS)
            elif name.startswith("bias_hh"):
                nn.init.zeros_(parameter[size : 2 * size])
