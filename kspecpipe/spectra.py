"""Fibre products: traces, flats, wavelengths and spectra, one row per fibre in trace order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from kspecpipe.errors import InputError
from kspecpipe.extraction.halo import Halo
from kspecpipe.extraction.response import Response
from kspecpipe.products.product import Product, cards, image_hdu, signal_hdu, table_hdu
from kspecpipe.signal import DQ, BoolArray, FloatArray, Signal
from kspecpipe.trace.model import POINT_DTYPE, Traces
from kspecpipe.trace.table import Profile
from kspecpipe.wavelength.lsf import N_TERM, Lsf, lsf_basis

PROFILE_AXES = (
    "CRPIX1",
    "CRVAL1",
    "CDELT1",
    "CRPIX2",
    "CRVAL2",
    "CDELT2",
    "CRPIX3",
    "CRVAL3",
    "CDELT3",
)
GRID_AXIS = ("CTYPE1", "CRPIX1", "CRVAL1", "CDELT1", "CUNIT1")
BLAZE_CARDS = tuple(
    f"ESO PRO BLAZE {name}"
    for name in ("METHOD", "RMS", "AMPLITUDE", "PERIOD", "CENTRE", "QUADRATIC", "CUBIC", "SLOPE")
)
REDUCED_GRID = ("ESO PRO GRID START", "ESO PRO GRID STEP", "ESO PRO GRID N")
CORRELATION = ("ESO PRO CORR1", "ESO PRO CORR2", "ESO PRO CORR3")


@dataclass(frozen=True, kw_only=True)
class TramlineMap(Product):
    """Where each fibre runs, how wide it is, and its cross-dispersion profile."""

    catg: ClassVar[str] = "TRAMLINE_MAP"
    traces: Signal = signal_hdu(unit="pixel", dtype="f8", doc="row of each trace (flux centroid)")
    width: FloatArray = image_hdu("WIDTH", unit="pixel", doc="FWHM of the profile")
    profile: FloatArray = image_hdu(
        "PROFILE", unit="", doc="flux fraction per pixel (fibre node, column node, offset)"
    )
    profile_axes: dict[str, Any] = cards("PROFILE", *PROFILE_AXES, doc="axes of the profile")
    predicted: FloatArray | None = image_hdu(
        "WAVELA", unit="Angstrom", dtype="f8", optional=True, doc="predicted wavelength"
    )
    points: Table | None = table_hdu("POINTS", optional=True, doc="measured trace positions")
    scattered: Table | None = table_hdu(
        "HALO", optional=True, doc="light scattered around each fibre: Gaussians, fractions"
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")

    @classmethod
    def of(
        cls,
        traces: Traces,
        profile: Profile,
        fibres: Table,
        predicted: FloatArray | None,
        halo: Halo | None = None,
    ) -> TramlineMap:
        """Build the product from traces and profile; what no light supports is flagged."""
        variance = np.full(traces.y.shape, np.nan_to_num(traces.rms, nan=0.0) ** 2)
        rows = Signal.of(traces.y.astype(float), variance)
        return cls(
            traces=rows.flag(_unsupported(traces), DQ.EXTRAPOLATED),
            width=traces.width,
            profile=profile.table,
            profile_axes=_axis_cards(profile),
            predicted=predicted,
            points=Table(traces.points),
            scattered=Table({"SIGMA": halo.sigma, "FRACTION": halo.fraction}) if halo else None,
            fibres=fibres,
        )

    @property
    def halo(self) -> Halo | None:
        """Light scattered around each fibre; None when it was not measured."""
        if self.scattered is None:
            return None
        return Halo(*(np.asarray(self.scattered[name], float) for name in ("SIGMA", "FRACTION")))

    @property
    def model(self) -> tuple[Traces, Profile]:
        """The traces and the profile as the numerics take them."""
        points = self.points.as_array() if self.points is not None else np.zeros(0, POINT_DTYPE)
        traces = Traces(
            self.traces.value,
            self.width,
            np.asarray(self.fibres["STATUS"]).astype(str),
            np.nan,
            np.nan,
            np.asarray(points),
        )
        return traces, self._profile()

    def _profile(self) -> Profile:
        axes, shape = self.profile_axes, self.profile.shape
        nodes = [
            axes[f"CRVAL{i}"] + axes[f"CDELT{i}"] * np.arange(shape[3 - i], dtype=float)
            for i in (1, 2, 3)
        ]
        return Profile(
            self.profile.astype(float), nodes[2], nodes[1], float(nodes[0][0]), axes["CDELT1"]
        )


@dataclass(frozen=True, kw_only=True)
class FibreFlat(Product):
    """Response of each fibre to the flat lamp."""

    catg: ClassVar[str] = "FIBRE_FLAT"
    flat: Signal = signal_hdu(unit="", doc="EXTRACTED / (BLAZE x THROUGHPUT)")
    extracted: FloatArray = image_hdu("EXTRACTED", unit="electron", doc="extracted flat")
    blaze: FloatArray = image_hdu("BLAZE", unit="electron", doc="smooth shape of the median fibre")
    blaze_fit: dict[str, Any] = cards("BLAZE", *BLAZE_CARDS, doc="how the blaze was fitted")
    lamps: Table | None = table_hdu(
        "LAMPS", optional=True, doc="columns and scale of each lamp, when there were several"
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre, with THROUGHPUT")


@dataclass(frozen=True, kw_only=True)
class WaveSolution(Product):
    """Air wavelength of every pixel centre of every fibre."""

    catg: ClassVar[str] = "WAVE_SOLUTION"
    wavelength: Signal = signal_hdu(unit="Angstrom", dtype="f8", doc="air wavelength")
    error: FloatArray = image_hdu("ERROR", unit="Angstrom", doc="error of the wavelength")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    lsf_shape: FloatArray | None = image_hdu(
        "LSFSHAPE", unit="", dtype="f8", optional=True, doc="spline coefficients of its shape"
    )
    lsf_basis: dict[str, Any] = cards("LSFSHAPE", "LSFFWHM", doc="FWHM that the splines suit")
    lines: Table = table_hdu("LINES", doc="every fitted line")
    shifts: Table = table_hdu("SHIFTS", doc="offset of each fibre")
    lamps: Table | None = table_hdu(
        "LAMPS", optional=True, doc="flux of each species over what its listed lines say"
    )
    arc: FloatArray | None = image_hdu(
        "ARC", unit="electron", optional=True, doc="extracted arc, sum of the exposures"
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")

    @property
    def line_shape(self) -> Lsf | FloatArray:
        """The empirical LSF, or its FWHM when the shape was not stored.

        Raises
        ------
        InputError
            If the shape was stored by a version that described it by other terms.
        """
        if self.lsf_shape is None:
            return self.lsf
        if len(self.lsf_shape) != N_TERM:
            raise InputError(
                f"LSFSHAPE of the WAVE_SOLUTION has {len(self.lsf_shape)} terms where {N_TERM} are "
                "known: another version made it; run marc again"
            )
        return Lsf(lsf_basis(float(self.lsf_basis["LSFFWHM"])), self.lsf_shape)


@dataclass(frozen=True, kw_only=True)
class Extracted(Product):
    """Spectra on native pixels, before flat and sky, with the factors that are applied later."""

    catg: ClassVar[str] = "EXTRACTED"
    spectra: Signal = signal_hdu(unit="electron", doc="extracted spectra")
    wavelength: FloatArray = image_hdu("WAVELA", unit="Angstrom", dtype="f8", doc="air wavelength")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    flat: FloatArray = image_hdu("FLAT", unit="", doc="fibre flat by wavelength, divided out later")
    sky: FloatArray = image_hdu("SKY", unit="electron", doc="sky model, subtracted later")
    flat_variance: FloatArray | None = image_hdu(
        "FLATVAR", unit="", optional=True, doc="variance of the fibre flat"
    )
    sky_variance: FloatArray | None = image_hdu(
        "SKYVAR", unit="electron2", optional=True, doc="variance of the sky model"
    )
    ron: FloatArray | None = image_hdu(
        "RON", unit="electron", optional=True, doc="read noise of a pixel under each fibre"
    )
    pixel_variance: FloatArray | None = image_hdu(
        "PIXVAR",
        unit="electron2",
        optional=True,
        doc="variance of a pixel under each fibre that is not of the fibres' light",
    )
    noise: dict[str, Any] = cards(
        "RON", "PRNU", doc="relative pixel-response scatter in the variance"
    )
    grid: dict[str, Any] = cards(
        "PRIMARY", *REDUCED_GRID, doc="grid of the REDUCED of the same exposure"
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")


@dataclass(frozen=True, kw_only=True)
class Reduced(Product):
    """Flat-fielded, sky-subtracted spectra on the grid of the mode."""

    catg: ClassVar[str] = "REDUCED"
    spectra: Signal = signal_hdu(unit="electron", doc="RWSS - SKY, electron per grid pixel")
    rwss: FloatArray = image_hdu("RWSS", unit="electron", doc="spectra before sky subtraction")
    sky: FloatArray = image_hdu("SKY", unit="electron", doc="sky that was subtracted")
    sky_variance: FloatArray = image_hdu("SKYVAR", unit="electron2", doc="variance of the sky")
    lsf: FloatArray = image_hdu("LSF", unit="Angstrom", doc="FWHM of the line-spread function")
    telluric: FloatArray | None = image_hdu(
        "TELLURIC", unit="", optional=True, doc="transmission of the air; not applied"
    )
    axis: dict[str, Any] = cards(
        "PRIMARY,VARIANCE,DQ,RWSS,SKY,SKYVAR,LSF,TELLURIC", *GRID_AXIS, doc="wavelength grid"
    )
    correlation: dict[str, Any] = cards(
        "PRIMARY", *CORRELATION, doc="correlation of samples 1, 2, 3 pixels apart, median fibre"
    )
    fibres: Table = table_hdu("FIBRES", doc="one row per fibre")


def blaze_cards(response: Response) -> dict[str, Any]:
    """Return how a blaze was fitted, with the parameters of a squared sinc."""
    values: dict[str, Any] = {
        "METHOD": "sinc" if response.sinc else "spline",
        "RMS": response.blaze_rms,
    }
    if response.sinc:
        names = ("amplitude", "period", "centre", "quadratic", "cubic", "slope")
        values |= {name.upper(): float(getattr(response.sinc, name)) for name in names}
    return {f"ESO PRO BLAZE {name}": value for name, value in values.items() if value == value}


def _axis_cards(profile: Profile) -> dict[str, Any]:
    """Axes of the profile table: 1 offset from the trace, 2 column, 3 fibre."""
    cards: dict[str, Any] = {}
    starts = (profile.first_offset, profile.x_node[0], profile.fibre_node[0])
    steps = (profile.step, _step(profile.x_node), _step(profile.fibre_node))
    for i, (start, step) in enumerate(zip(starts, steps, strict=True), start=1):
        cards |= {f"CRPIX{i}": 1.0, f"CRVAL{i}": float(start), f"CDELT{i}": float(step)}
    return cards


def _step(nodes: FloatArray) -> float:
    steps = np.diff(nodes)
    if steps.size and np.ptp(steps) > 1e-6 * abs(steps[0]):
        raise ValueError(f"the nodes of a profile must be equally spaced, not {nodes}")
    return float(steps[0]) if steps.size else 1.0


def _unsupported(traces: Traces) -> BoolArray:
    """Return where no measured point of the fibre stands on either side: extrapolated."""
    used = traces.points[traces.points["used"]]
    columns = np.arange(traces.y.shape[1])
    outside = np.ones(traces.y.shape, dtype=bool)
    for fibre in np.unique(used["fibre"]):
        x = used["x"][used["fibre"] == fibre]
        outside[fibre] = (columns < x.min()) | (columns > x.max())
    return outside
