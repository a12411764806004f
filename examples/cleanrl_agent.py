"""An agent as CleanRL writes them (no `forward`, stored widths asserted on the way), pruned inside its own loop."""

import torch
from torch import nn
from torch.distributions import Categorical

import gsprune


class ConvSequence(nn.Module):
    """A stage that keeps its output shape and asserts it."""

    def __init__(self, input_shape: tuple[int, int, int], out_channels: int) -> None:
        super().__init__()
        self._input_shape, self._out_channels = input_shape, out_channels
        self.conv = nn.Conv2d(input_shape[0], out_channels, 3, padding=1)
        self.residual = nn.Sequential(nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One stage, at half the resolution."""
        x = nn.functional.max_pool2d(self.conv(x), 3, 2, 1)
        x = x + self.residual(x)
        assert x.shape[1:] == self.output_shape()
        return x

    def output_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        _, height, width = self._input_shape
        return self._out_channels, (height + 1) // 2, (width + 1) // 2


class Agent(nn.Module):
    """Actor and critic over shared features."""

    def __init__(self) -> None:
        super().__init__()
        first = ConvSequence((3, 64, 64), 16)
        second = ConvSequence(first.output_shape(), 32)
        self.network = nn.Sequential(first, second, nn.Flatten(), nn.ReLU(), nn.Linear(32 * 16 * 16, 256), nn.ReLU())
        self.actor, self.critic = nn.Linear(256, 15), nn.Linear(256, 1)

    def get_action_and_value(
        self, x: torch.Tensor, action: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What CleanRL's PPO calls."""
        hidden = self.network(x.permute(0, 3, 1, 2) / 255.0)  # channels last, as Procgen delivers them
        policy = Categorical(logits=self.actor(hidden))
        action = policy.sample() if action is None else action
        return action, policy.log_prob(action), policy.entropy(), self.critic(hidden)


if __name__ == "__main__":
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
    pruner = gsprune.Pruner(
        agent,
        gsprune.schedules.Cubic(final=0.8),
        optimizer=optimizer,
        example_inputs=torch.zeros(2, 64, 64, 3),
        forward=lambda agent, x: agent.get_action_and_value(x),
    )
    num_iterations = 10
    for iteration in range(1, num_iterations + 1):
        frames = torch.randint(0, 256, (32, 64, 64, 3)).float()  # stands for a rollout
        _, logprob, entropy, value = agent.get_action_and_value(frames)
        loss = -logprob.mean() - 0.01 * entropy.mean() + value.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report = pruner.step(iteration / num_iterations)
        print(f"iteration {iteration:2}  widths {[group.after for group in report.groups]}")
    print(report)
