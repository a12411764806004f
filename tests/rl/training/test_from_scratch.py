import pytest
import torch

import gsprune
from gsprune.errors import CheckpointError
from gsprune.networks import ActorCritic, build_encoder, example_frames
from gsprune.rl.training.checkpoints import save_checkpoint
from gsprune.rl.training.from_scratch import take_widths


def fresh_agent(seed):
    torch.manual_seed(seed)
    return ActorCritic(build_encoder("nature"), num_actions=15)


def test_an_agent_takes_the_widths_of_a_run_and_draws_its_weights_anew(tmp_path):
    pruned = fresh_agent(0)
    gsprune.prune_step(pruned, 0.5, example_inputs=example_frames())
    save_checkpoint(tmp_path / "checkpoints", 1, pruned, torch.optim.Adam(pruned.parameters()), {})
    agent = fresh_agent(1)
    take_widths(agent, tmp_path)
    for ours, theirs in zip(agent.parameters(), pruned.parameters(), strict=True):
        assert ours.shape == theirs.shape
        assert not torch.equal(ours, theirs) or not ours.any()
    actor = agent.actor.weight.double()
    torch.testing.assert_close(actor @ actor.T, 1e-4 * torch.eye(15).double(), atol=1e-9, rtol=1e-4)
    torch.testing.assert_close(agent.critic.weight.norm(), torch.tensor(1.0))
    assert not agent.actor.bias.any()
    assert agent(example_frames())[0].shape == (1, 15)


def test_a_run_of_another_network_is_refused_and_the_agent_stays(tmp_path):
    wide = ActorCritic(build_encoder("nature", 2), num_actions=15)
    save_checkpoint(tmp_path / "checkpoints", 1, wide, torch.optim.Adam(wide.parameters()), {})
    agent, untouched = fresh_agent(1), fresh_agent(1)
    with pytest.raises(CheckpointError):
        take_widths(agent, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(agent.parameters(), untouched.parameters(), strict=True))
