"""Photometric catalogues: ATLAS Refcat2, and which of its rows a fibre looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.io import ascii as text_tables
from astropy.table import Row, Table

from kspecpipe.errors import InputError
from kspecpipe.fluxcal.containers import Photometry
from kspecpipe.fluxcal.photometry import FILTER_INFO
from kspecpipe.signal import FloatArray, IntArray

#: Columns of magnitude and error of each band.
REFCAT2_BANDS = {
    "gaia_g": ("Gaia", "dGaia"),
    "gaia_bp": ("BP", "dBP"),
    "gaia_rp": ("RP", "dRP"),
    "ps1_g": ("g", "dg"),
    "ps1_r": ("r", "dr"),
    "ps1_i": ("i", "di"),
    "ps1_z": ("z", "dz"),
    "2mass_j": ("J", "dJ"),
    "2mass_h": ("H", "dH"),
    "2mass_k": ("K", "dK"),
}
_META = {
    "ra": "RA",
    "dec": "Dec",
    "parallax": "plx",
    "parallax_error": "dplx",
    "teff_catalog": "Teff",
    "dupvar": "dupvar",
    "a_gaia": "AGaia",
    "a_g": "Ag",
    "r1": "r1",
}
_POSITIONS = {"ra": "RA", "dec": "Dec"}
_NO_MAGNITUDE, _NO_ERROR = 99.0, 9.9
_COOL = 0.8
#: Epoch of Gaia DR2's positions, which Refcat2 carries [MJD of 2015.5].
CATALOGUE_MJD = 57204.0
_YEAR = 365.25


def parse_refcat2(text: str) -> Table:
    """Read a catalogue in the CSV form of ATLAS Refcat2.

    Parameters
    ----------
    text : str
        Comma-separated values with one line of column names; ``#`` starts a comment.

    Returns
    -------
    Table
        All columns, as they are.

    Raises
    ------
    InputError
        If it is no table, is empty, or has neither positions nor magnitudes.

    References
    ----------
    .. [1] Tonry et al. 2018, ApJ 867, 105.
    """
    # The names of the columns may themselves be commented out.
    lines = [line for line in text.splitlines() if line.strip() and "," in line]
    if lines:
        lines[0] = lines[0].lstrip("# ")
    rows = [line for line in lines if not line.startswith("#")]
    if len(rows) < 2:
        raise InputError("the catalogue of standard stars has no rows; expected Refcat2 CSV")
    try:
        table = text_tables.read(rows, format="csv", fast_reader=False)
    except (text_tables.InconsistentTableError, ValueError) as error:
        raise InputError(f"the catalogue of standard stars is no CSV table: {error}") from None
    return require_refcat2(table)


def require_refcat2(table: Table) -> Table:
    """Return a catalogue with its columns' names as Refcat2 writes them.

    Parameters
    ----------
    table : Table
        From CSV or FITS; blanks around names and the case of RA and Dec do not matter.

    Raises
    ------
    InputError
        If it has no rows, or neither positions nor magnitudes.
    """
    if len(table) == 0:
        raise InputError("the catalogue of standard stars has no rows")
    named = table.copy()
    for name in named.colnames:
        bare = name.strip()
        named.rename_column(name, _POSITIONS.get(bare.lower(), bare))
    missing = {"RA", "Dec"} - set(named.colnames)
    if missing or not any(pair[0] in named.colnames for pair in REFCAT2_BANDS.values()):
        raise InputError(
            f"the catalogue of standard stars has columns {table.colnames}; expected RA, Dec and "
            "at least one of " + ", ".join(pair[0] for pair in REFCAT2_BANDS.values())
        )
    return named


def photometry_from_catalog_row(
    row: Row, filter_names: Sequence[str] = tuple(REFCAT2_BANDS)
) -> Photometry:
    """Return the AB magnitudes of one star.

    Vega magnitudes become AB magnitudes; a magnitude of 99 or more, an error of 9.9 or more, and
    an error that is not positive mean that the band was not measured.

    Parameters
    ----------
    row : Row
        Of a table as `parse_refcat2` returns it: ``catalogue[3]``.
    filter_names : sequence of str
        Bands of `REFCAT2_BANDS` to take.

    Returns
    -------
    Photometry
        NaN where there is nothing.
    """
    magnitude = np.full(len(filter_names), np.nan)
    error = np.full(len(filter_names), np.nan)
    for index, band in enumerate(filter_names):
        m, e = (_number(row, column) for column in REFCAT2_BANDS[band])
        if abs(m) < _NO_MAGNITUDE and m != 0 and 0 < e < _NO_ERROR:
            magnitude[index], error[index] = m + FILTER_INFO[band].vega_to_ab, e
    meta = {key: _number(row, column) for key, column in _META.items()}
    name = str(row["objid"]) if "objid" in row.colnames else f"row {row.index + 1}"
    return Photometry(tuple(filter_names), magnitude, error, {"objid": name, **meta})


def positions(catalogue: Table, mjd: float) -> tuple[FloatArray, FloatArray]:
    """Positions of all rows at an epoch.

    Parameters
    ----------
    catalogue : Table
        As `parse_refcat2` returns it; proper motions in mas/yr, in right ascension times cosine of
        the declination.
    mjd : float
        Epoch; NaN leaves the positions as they are.

    Returns
    -------
    ra, dec : ndarray, shape (n,)
        [degree].
    """
    ra, dec = _column(catalogue, "RA"), _column(catalogue, "Dec")
    years = (mjd - CATALOGUE_MJD) / _YEAR
    if not np.isfinite(years):
        return ra, dec
    motion_ra = np.nan_to_num(_column(catalogue, "pmra")) * years / 3.6e6
    motion_dec = np.nan_to_num(_column(catalogue, "pmdec")) * years / 3.6e6
    return ra + motion_ra / np.cos(np.deg2rad(dec)), dec + motion_dec


def match_positions(
    ra: FloatArray, dec: FloatArray, catalogue: Table, *, mjd: float, radius: float
) -> tuple[IntArray, FloatArray]:
    """Find the catalogue row of each fibre by its position, never by its place in the table.

    A fibre list gives coordinates for the night or, as often, for the catalogue's epoch, and does
    not say which; a star counts with the smaller of the two separations.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Of the fibres [degree]; NaN matches nothing.
    catalogue : Table
        As `parse_refcat2` returns it.
    mjd : float
        Of the exposure; NaN: no proper motion.
    radius : float
        Largest separation [arcsec].

    Returns
    -------
    row : ndarray of int, shape (n,)
        Index into the catalogue, -1 without a match. No row is given to two fibres: the nearer
        one has it.
    separation : ndarray, shape (n,)
        Distance to the nearest row [arcsec], matched or not.
    """
    distance = np.minimum(
        _separation(ra, dec, *positions(catalogue, mjd)),
        _separation(ra, dec, *positions(catalogue, np.nan)),
    )
    distance = np.where(np.isfinite(distance), distance, np.inf)
    row, nearest = np.argmin(distance, axis=1), np.min(distance, axis=1)
    row = np.where(nearest <= radius, row, -1)
    for index in np.unique(row[row >= 0]):
        rivals = np.flatnonzero(row == index)
        row[np.delete(rivals, np.argmin(nearest[rivals]))] = -1
    return row, nearest


def is_variable(photometry: Photometry) -> bool:
    """Tell whether Gaia calls the star variable (lowest two bits of Refcat2's ``dupvar``)."""
    flag = photometry.meta.get("dupvar", np.nan)
    return bool(np.isfinite(flag) and int(flag) % 4 == 1)


def is_giant(photometry: Photometry, *, margin: float = 3.0) -> bool:
    """Tell whether a cool star is far above the main sequence, at two sigma of its parallax.

    Hotter than about 5700 K (BP - RP < 0.8) evolved stars have models in every library and are
    welcome.
    The main sequence is M_G = 2.6 at BP - RP = 0.4 and falls by 5.5 mag per magnitude of colour
    (Gaia Collaboration, Babusiaux et al. 2018, A&A 616, A10, figure 5, read by eye).
    """
    parallax = photometry.meta.get("parallax", np.nan)
    error = photometry.meta.get("parallax_error", np.nan)
    vega = FILTER_INFO["gaia_bp"].vega_to_ab - FILTER_INFO["gaia_rp"].vega_to_ab
    colour = photometry.colour("gaia_bp", "gaia_rp") - vega
    brightness = photometry.get_band("gaia_g")[0] - FILTER_INFO["gaia_g"].vega_to_ab
    known = np.isfinite([parallax, error, colour, brightness]).all()
    if not known or colour < _COOL or parallax <= 0 or not 0 < error < parallax / 3:
        return False
    absolute = brightness + 5 * np.log10((parallax + 2 * error) / 100.0)
    return bool(absolute < 2.6 + 5.5 * (colour - 0.4) - margin)


def _separation(
    ra: FloatArray, dec: FloatArray, star_ra: FloatArray, star_dec: FloatArray
) -> FloatArray:
    """Great-circle distances [arcsec], shape (n, stars)."""
    a, d = np.deg2rad(ra)[:, None], np.deg2rad(dec)[:, None]
    b, e = np.deg2rad(star_ra), np.deg2rad(star_dec)
    chord = np.sin((d - e) / 2) ** 2 + np.cos(d) * np.cos(e) * np.sin((a - b) / 2) ** 2
    arcsec: FloatArray = np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))) * 3600.0
    return arcsec


def _column(catalogue: Table, name: str) -> FloatArray:
    if name not in catalogue.colnames:
        return np.zeros(len(catalogue))
    try:
        numbers = np.ma.filled(np.ma.asarray(catalogue[name]).astype(float), np.nan)
    except ValueError:
        return np.array([_number(row, name) for row in catalogue])
    return np.asarray(numbers)


def _number(row: Row, name: str) -> float:
    """One entry as a number; NaN where there is none."""
    if name not in row.colnames or row[name] is np.ma.masked:
        return float("nan")
    try:
        return float(row[name])
    except ValueError:
        return float("nan")
