"""Generalized hidden-parameter MDPs: control with a latent-conditioned ensemble (Perez 2020)."""
