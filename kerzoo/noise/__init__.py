"""Random streams without a global generator, and the directions u as keyed noise.

Every random number of a run is a function of (seed, stream, step, direction) and, inside a
direction, of the parameter's offset. Batches, directions, radii and initial values are separate
streams: arms with one seed share batches and directions, and drawing r never shifts u.
"""

from kerzoo.noise.engine import CHUNK_ELEMENTS, NoiseEngine, noise_engine
from kerzoo.noise.keys import Stream, derive_key, uniform_from_key
from kerzoo.noise.laws import Gaussian, Perturbation, Rademacher, Sphere

__all__ = [
    "CHUNK_ELEMENTS",
    "Gaussian",
    "NoiseEngine",
    "Perturbation",
    "Rademacher",
    "Sphere",
    "Stream",
    "derive_key",
    "noise_engine",
    "uniform_from_key",
]
