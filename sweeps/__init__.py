"""The orchestration: Hydra composes a plan of trials, Ray Tune runs them, records stay on disk."""
