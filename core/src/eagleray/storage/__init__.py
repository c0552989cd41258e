"""Where datasets, weights, checkpoints and job records are kept. Knows nothing of Ray."""
