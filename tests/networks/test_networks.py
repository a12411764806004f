"""The built-in networks have the published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gsprune
from gsprune.networks import ActorCritic, ImpalaEncoder, NatureEncoder, QNetwork, build_encoder, example_frames

# Parameters with PPO heads for 15 actions, from the sequel's published table.
PARAMETERS = {
    ("impala", 1): 626_256,
    ("impala", 2): 1_441_680,
    ("impala", 3): 2_450_640,
    ("impala", 4): 3_653_136,
    ("impala", 5): 5_049_168,
    ("impoola", 1): 110_160,
    ("impoola", 2): 409_488,
    ("impoola", 3): 902_352,
    ("impoola", 4): 1_588_752,
    ("impoola", 5): 2_468_688,
    ("nature", 1): 342_448,
    ("nature", 1.5): 563_712,
    ("nature", 2): 819_792,
}

# Millions of multiplications with weights per frame, from the same table.
MACS = {
    "impala": {1: 30.61, 2: 117.84, 3: 261.69, 4: 462.16, 5: 719.26},
    "impoola": {1: 30.09, 2: 116.81, 3: 260.14, 4: 460.10, 5: 716.68},
}


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "width"), PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str, width: float) -> None:
    agent = ActorCritic(build_encoder(name, width), num_actions=15)  # type: ignore[arg-type]
    assert num_parameters(agent) == PARAMETERS[name, width]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", MACS)
def test_macs_are_the_published_ones(name: str, width: int) -> None:
    agent = ActorCritic(build_encoder(name, width), num_actions=15)  # type: ignore[arg-type]
    assert round(gsprune.cost(agent, example_frames()).macs / 1e6, 2) == MACS[name][width]


@pytest.mark.parametrize("name", ["impala", "impoola"])
def test_the_residual_streams_make_ten_groups_and_no_head_is_in_one(name: str) -> None:
    graph = gsprune.trace(ActorCritic(build_encoder(name, 1), num_actions=15), example_frames())  # type: ignore[arg-type]
    assert sorted(group.width for group in graph.groups) == sorted([16] * 3 + [32] * 6 + [256])
    outputs = {member.tensor for group in graph.groups for member in group.members if member.role == "out"}
    assert not any(tensor.startswith(("actor", "critic")) for tensor in outputs)
    assert len(outputs) == 2 * 16  # weight and bias of 15 convolutions and the dense layer


@pytest.mark.parametrize("name", ["nature", "impala", "impoola"])
def test_bytes_and_floats_of_the_same_frames_give_the_same_output(name: str) -> None:
    torch.manual_seed(0)
    agent = ActorCritic(build_encoder(name, 1), num_actions=15)  # type: ignore[arg-type]
    frames = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    logits, values = agent(frames)
    logits_of_floats, values_of_floats = agent(frames.float())
    assert logits.shape == (3, 15)
    assert values.shape == (3,)
    assert torch.equal(logits, logits_of_floats)
    assert torch.equal(values, values_of_floats)


def test_frames_are_divided_by_255_inside_the_network() -> None:
    torch.manual_seed(0)
    encoder = NatureEncoder()
    frames = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    conv1_outputs: list[torch.Tensor] = []
    encoder.conv1.register_forward_hook(lambda module, args, output: conv1_outputs.append(output))
    encoder(frames)
    expected = encoder.conv1.weight.sum(dim=(1, 2, 3)) + encoder.conv1.bias
    torch.testing.assert_close(conv1_outputs[0][0, :, 0, 0], expected)


def test_impoola_is_impala_with_a_mean_over_space() -> None:
    torch.manual_seed(0)
    impala = ImpalaEncoder(1)
    impoola = ImpalaEncoder(1, pooled=True)
    impoola.sequences.load_state_dict(impala.sequences.state_dict())
    with torch.no_grad():
        # A dense layer that averages each channel's 64 columns does what the pooling does.
        impala.linear.weight.copy_(impoola.linear.weight.repeat_interleave(64, dim=1) / 64)
        impala.linear.bias.copy_(impoola.linear.bias)
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(impala(frames), impoola(frames))


def test_heads_start_orthogonal_and_without_bias() -> None:
    torch.manual_seed(0)
    agent = ActorCritic(build_encoder("impoola", 1), num_actions=15)
    q_network = QNetwork(build_encoder("impoola", 1), num_actions=15)
    for head, gain in ((agent.actor, 0.01), (agent.critic, 1.0), (q_network.head, 0.01)):
        gram = head.weight @ head.weight.T
        torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), atol=1e-6, rtol=1e-4)
        assert not head.bias.any()
    assert q_network(example_frames(2)).shape == (2, 15)


def test_example_frames_are_channels_last_in_memory() -> None:
    assert example_frames(2).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("width", [0.5, 0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["nature", "impala", "impoola"])
def test_a_width_below_one_is_refused(name: str, width: float) -> None:
    with pytest.raises(ValueError, match="`width` must be at least 1"):
        build_encoder(name, width)  # type: ignore[arg-type]


def test_an_unknown_encoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'nature', 'impala' or 'impoola', got 'resnet'"):
        build_encoder("resnet")  # type: ignore[arg-type]
