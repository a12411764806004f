"""Double DQN with prioritised n-step replay."""
