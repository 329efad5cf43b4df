"""Cosmic rays in a single frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astroscrappy import detect_cosmics

from kspecpipe.signal import BoolArray, FloatArray

#: Rows beyond those asked for that the search sees, so that its filters meet no edge.
MARGIN = 6


@dataclass(frozen=True)
class CosmicOptions:
    """Limits of L.A.Cosmic.

    The defaults keep lines and fibre profiles of 3 pixels FWHM and more: that needs the full median
    filter for the fine structure. The separable one is three times faster and takes the cores of
    2 % of the lit samples of an arc for cosmic rays.

    Parameters
    ----------
    sigma : float
        Significance that the Laplacian of a pixel must have.
    neighbour_fraction : float
        Fraction of that limit for neighbours of a cosmic ray.
    contrast : float
        How many times sharper than the fine structure of the light a cosmic ray must be.
    iterations : int
        Passes; later ones find the edges of large events.
    profile_error : float
        Noise proportional to the light, so that the true edges of a bright fibre do not become
        significant: without it 1 % of the lit samples of a flat of 7000 electrons are lost.
    """

    sigma: float = 5.0
    neighbour_fraction: float = 0.3
    contrast: float = 2.0
    iterations: int = 2
    profile_error: float = 0.02


def find_cosmics(
    image: FloatArray,
    ron: float | FloatArray,
    *,
    good: BoolArray | None = None,
    rows: tuple[int, int] | None = None,
    background: FloatArray | None = None,
    options: CosmicOptions | None = None,
) -> BoolArray:
    """Find cosmic rays by their edges, which are sharper than light through the optics can be.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Image without bias [electron]; NaN and Inf are ignored.
    ron : float or ndarray of shape (ny, nx)
        Read noise [electron].
    good : ndarray of bool, shape (ny, nx), optional
        False where a pixel is known to be bad: it is neither searched nor trusted.
    rows : (int, int), optional
        First and last (exclusive) row that is searched; the time goes with their number.
    background : ndarray, shape (ny, nx), optional
        Smooth model of the light [electron] that the search may take off.
    options : CosmicOptions, optional
        Limits.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True where a cosmic ray was found: to be flagged ``COSMIC``. False outside ``rows``.

    Raises
    ------
    ValueError
        If shapes differ, ``rows`` are not in the image, or the read noise is not positive.

    References
    ----------
    .. [1] van Dokkum 2001, PASP 113, 1420.
    .. [2] McCully et al. 2018, astroscrappy, doi:10.5281/zenodo.1482019.
    """
    options = options or CosmicOptions()
    first, last = rows or (0, image.shape[0])
    _check(image, ron, (first, last), {"good": good, "background": background})
    crop = slice(max(first - MARGIN, 0), last + MARGIN)
    ignore = ~np.isfinite(image[crop])
    pixels = np.where(ignore, 0, image[crop]).astype(np.float32)
    light = np.maximum(pixels, 0)
    noise = np.broadcast_to(ron, image.shape)[crop]
    variance = noise**2 + light + (options.profile_error * light) ** 2
    if good is not None:
        ignore |= ~good[crop]
    found, _ = detect_cosmics(
        pixels,
        inmask=ignore,
        inbkg=None if background is None else background[crop].astype(np.float32),
        invar=variance.astype(np.float32),
        sigclip=options.sigma,
        sigfrac=options.neighbour_fraction,
        objlim=options.contrast,
        niter=options.iterations,
        satlevel=np.inf,
        sepmed=False,
    )
    cosmic = np.zeros(image.shape, bool)
    cosmic[crop] = found & ~ignore
    cosmic[:first] = False
    cosmic[last:] = False
    return cosmic


def _check(
    image: FloatArray,
    ron: float | FloatArray,
    rows: tuple[int, int],
    others: dict[str, BoolArray | FloatArray | None],
) -> None:
    if image.ndim != 2:
        raise ValueError(f"cosmic rays are searched in an image (ny, nx), not {image.shape}")
    if not 0 <= rows[0] < rows[1] <= image.shape[0]:
        raise ValueError(f"rows {rows} are not in an image of {image.shape[0]} rows")
    if not np.all(np.asarray(ron) > 0):
        raise ValueError(f"the read noise must be above 0 electrons, not {np.min(ron)}")
    size = {"ron": ron if isinstance(ron, np.ndarray) else None}
    for name, other in {**others, **size}.items():
        if other is not None and other.shape != image.shape:
            raise ValueError(f"{name} has shape {other.shape}, the image {image.shape}")
