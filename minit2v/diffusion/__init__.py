"""Diffusion: noise, and the way back."""
