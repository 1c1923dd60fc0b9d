"""Losses of four errors, weights of pairs, and the laws that noise and timesteps follow."""
