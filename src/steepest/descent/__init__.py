"""The algorithm: objective, update rule, schedule, one compiled epoch, and the loop around it."""
