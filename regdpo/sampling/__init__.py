"""Videos rendered by a model, for negatives and for evaluation."""
