"""Looking at data before training: what its columns hold, say about the target, and mean for a descent."""
