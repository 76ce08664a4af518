"""LatentPeek: change one number of a latent and see which pixels answer.

    frame -> encode -> latents (4 h w), four tiles -> one number changed -> decode -> frame, and |difference|

References: latent diffusion, Rombach et al. 2022 (arXiv:2112.10752), section 3.1.
"""
