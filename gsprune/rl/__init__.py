"""Agents for Procgen that shrink while they train: PPO, DQN, and how both are evaluated."""
