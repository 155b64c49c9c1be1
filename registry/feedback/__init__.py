"""Learning from what was chosen: a small map of query vectors, trained on a deployment's own feedback."""
