"""The empirical cross-dispersion profile: measured on a flat, sampled on any frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from kspecpipe.errors import RecipeError
from kspecpipe.signal import Signal
from kspecpipe.trace.clean import (
    BlockSpectra,
    block_width,
    clean_blocks,
    measure_centroids,
    reject_rows,
    solve_blocks,
)
from kspecpipe.trace.model import SurfaceOptions, Traces, fit_surface
from kspecpipe.trace.profile_fit import ProfileShape, first_guess, fit_profile, widths
from kspecpipe.trace.table import Profile, sample_profile

__all__ = ["Profile", "ProfileOptions", "measure_profile", "sample_profile"]


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """How the profile is measured.

    Parameters
    ----------
    blocks : int
        Smallest number of column blocks; steep traces get more.
    half_width : float
        Half width of the profile in FWHM, cut to 0.5 to 1.2 pitches.
    order_x, order_fibre : int
        Polynomial orders of its change along the dispersion and across the fibres.
    iterations : int
        Rounds of flux, profile, centroids.
    fibre_nodes, x_nodes : int
        Nodes of the stored table.
    surface : SurfaceOptions
        Stiffness of the refined traces.
    """

    blocks: int = 48
    half_width: float = 3.0
    order_x: int = 2
    order_fibre: int = 1
    iterations: int = 3
    fibre_nodes: int = 9
    x_nodes: int = 9
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)


def measure_profile(
    flat: Signal, traces: Traces, *, options: ProfileOptions | None = None
) -> tuple[Profile, Traces]:
    """Measure the cross-dispersion profile of a flat and refine the traces with it.

    Fluxes, profile and centroids are solved in turn until they agree: B-splines with knots at
    whole pixels describe the pixel-integrated profile (their sum over pixels and their centroid
    do not depend on where the trace crosses a pixel), and neighbours are solved together, so that
    the wings are right where they overlap.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Flat without background [electron]; its variance holds read noise and calibration terms.
    traces : Traces
        As found by `find_traces`.
    options : ProfileOptions, optional
        Blocks, orders, rounds.

    Returns
    -------
    Profile
        Normalised to 1, its flux centroid at offset 0.
    Traces
        Moved to the flux centroid, with measured widths and points.

    Raises
    ------
    RecipeError
        If no live fibre has enough light.
    ValueError
        If the flat and the traces differ in columns.
    """
    options = options or ProfileOptions()
    if flat.shape[1] != traces.y.shape[1]:
        raise ValueError(f"flat {flat.shape} and traces {traces.y.shape} differ in columns")
    if not traces.live.any():
        raise RecipeError("no live fibre: a profile needs light. Was the lamp on?")
    spectra = clean_blocks(flat, block_width(traces, options.blocks), traces)
    half_width = _half_width(traces, options.half_width, floor=spectra.floor)
    profile = first_guess(traces, half_width)
    spectra = solve_blocks(spectra, traces, profile)
    shape: ProfileShape | None = None
    for round_ in range(options.iterations):
        orders = (options.order_x, options.order_fibre)
        shape = fit_profile(spectra, traces, half_width, orders, shape)
        traces = replace(traces, y=traces.y + shape.centre(traces))
        profile = shape.tabulate(traces.y.shape[0], options.fibre_nodes, options.x_nodes)
        spectra = solve_blocks(spectra, traces, profile)
        traces = _retrace(spectra, traces, profile, options.surface)
        spectra = solve_blocks(spectra, traces, profile)
        if round_ == 0:
            spectra = reject_rows(spectra, profile)
    profile = profile.non_negative()
    return profile, replace(traces, width=widths(profile, traces.y.shape))


def extend_wings(
    flat: Signal, traces: Traces, profile: Profile, *, options: ProfileOptions | None = None
) -> Profile:
    """Measure a profile anew, out to its far wings, when scattered light is gone.

    Between the fibres of a raw flat nothing tells wings from scattered light, and a profile that
    ends there misses half a per cent of the light. The traces stay: of all that is measured the
    centroid suffers most from what subtracting scattered light leaves.

    Parameters
    ----------
    flat : Signal, shape (ny, nx)
        Flat without scattered light [electron].
    traces : Traces
        Its traces.
    profile : Profile
        As `measure_profile` found it.
    options : ProfileOptions, optional
        Blocks, orders, nodes.

    Returns
    -------
    Profile
        Normalised to 1, about the same traces.
    """
    options = options or ProfileOptions()
    spectra = clean_blocks(flat, block_width(traces, options.blocks), traces)
    half_width = _half_width(traces, options.half_width, floor=spectra.floor)
    spectra = reject_rows(solve_blocks(spectra, traces, profile), profile)
    orders = (options.order_x, options.order_fibre)
    common = fit_profile(spectra, traces, half_width, orders)
    shape = fit_profile(spectra, traces, half_width, orders, common)
    n_fibre = traces.y.shape[0]
    wide = shape.tabulate(n_fibre, options.fibre_nodes, options.x_nodes, centred=False)
    return wide.non_negative()


def _half_width(traces: Traces, factor: float, *, floor: bool) -> float:
    """Half width of the profile [pixel]: some FWHM, but not beyond the next fibre's far wing.

    Where scattered light hides the wings, the profile ends half way to the next fibre.
    """
    if floor:
        return 0.5 * float(np.diff(traces.y, axis=0).min())
    wanted = factor * float(np.median(traces.width))
    return float(np.clip(wanted, 0.5 * traces.pitch, 1.2 * traces.pitch))


def _retrace(
    spectra: BlockSpectra, traces: Traces, profile: Profile, options: SurfaceOptions
) -> Traces:
    """Fit the surface to centroids measured with the profile."""
    points = measure_centroids(spectra, traces, profile)
    if points.x.size < 2:
        raise RecipeError("no block of columns has enough light to measure centroids")
    n_x = traces.y.shape[1]
    y, table = fit_surface(points, traces.y[:, n_x // 2], n_x, options)
    return replace(traces, y=y, points=table)
