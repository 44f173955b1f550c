"""The row LSTM: the order of rows, gates that remember, and what it refuses."""

import pytest
import torch

from tests.builders import Outcome
from vision_lab.core.arguments import ArgumentError
from vision_lab.models.architectures.row_lstm import RowLSTM


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_rows_are_read_in_order(cell: str, bidirectional: bool):
    torch.manual_seed(0)
    network = RowLSTM(
        num_classes=5,
        channels=3,
        image_size=(12, 8),
        cell=cell,
        hidden_size=16,
        bidirectional=bidirectional,
    ).eval()
    images = torch.rand(4, 3, 12, 8)
    logits = network(images)
    assert logits.shape == (4, 5)
    # One row after the other, as a network that is called with single rows would do.
    state, rows = None, images.permute(0, 2, 1, 3).flatten(2)
    if not bidirectional:
        for row in range(12):
            output, state = network.rnn(rows[:, row : row + 1], state)
        torch.testing.assert_close(network.fc(output[:, 0]), logits)
    assert not torch.allclose(network(images.flip(2)), logits)


def test_each_direction_of_a_bidirectional_network_ends_with_its_last_row():
    network = RowLSTM(num_classes=2, image_size=(6, 4), hidden_size=8, bidirectional=True).eval()
    images = torch.rand(1, 3, 6, 4)
    _, (hidden, _) = network.rnn(images.transpose(1, 2).flatten(2))
    torch.testing.assert_close(
        network.fc(torch.cat([hidden[0], hidden[1]], dim=1)), network(images)
    )


def test_an_lstm_remembers_at_first():
    network = RowLSTM(num_classes=2, hidden_size=8)
    total = network.rnn.bias_ih_l0 + network.rnn.bias_hh_l0
    assert torch.equal(total[8:16], torch.ones(8))
    assert not torch.equal(total[:8], torch.ones(8))


def test_the_height_may_change_and_the_width_may_not():
    network = RowLSTM(num_classes=2, image_size=(8, 8), hidden_size=8)
    assert network(torch.rand(2, 3, 20, 8)).shape == (2, 2)
    with pytest.raises(ArgumentError, match="type images that are 8 pixels wide"):
        network(torch.rand(2, 3, 8, 9))


def test_it_is_trained_by_its_name(command) -> None:
    outcome: Outcome = command(
        *("model=row_lstm", "debug=fast", "trainer=cpu", "logger=none", "name=x"),
        *("model.network.hidden_size=8", "callbacks.image_logger=null"),
    )
    assert outcome.code == 0, outcome.err
    assert "FLOPs per image" in outcome.out  # those of recurrent layers are counted


def test_heads_on_feature_maps_are_refused(command) -> None:
    outcome = command("model=row_lstm", "task=segment", "debug=fast", "trainer=cpu")
    assert outcome.code == 1
    assert "this network has no feature maps for heads" in outcome.err
