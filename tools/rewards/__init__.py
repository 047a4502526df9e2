"""What train_with_rewards.py is made of: the rewards, and the two methods."""
