"""KerZOO: kernel-weighted zeroth-order fine-tuning with forward passes only.

The package is the method alone: kernels, noise, estimator, optimizer, trials and their records.
It knows torch and transformers, and nothing of Ray, Hydra or W&B. Importing it imports no torch.
"""

METHOD_VERSION = 5
"""Part of every trial's identity; raise it when golden trajectories change."""

__version__ = "0.1.0"
