"""Some fibres of a product, as a user names them on the command line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kspecpipe.errors import SettingsError
from kspecpipe.formats.fibre_spectra import FibreSpectra


def choose(
    spectra: FibreSpectra, fibre_ids: Sequence[int] | None, types: str | None
) -> FibreSpectra:
    """Return the fibres of some FIBRE_IDs and types.

    Raises
    ------
    SettingsError
        If one does not exist, or none is left.
    """
    ids, kinds = (np.asarray(spectra.fibres[name]) for name in ("FIBRE_ID", "TYPE"))
    keep = np.ones(len(spectra), bool)
    if fibre_ids:
        unknown = sorted(set(fibre_ids) - {int(i) for i in ids})
        if unknown:
            raise SettingsError(f"no fibre {unknown[0]}; there are {ids.min()} to {ids.max()}")
        keep &= np.isin(ids, fibre_ids)
    if types:
        keep &= np.isin(kinds.astype(str), list(types.upper()))
    if not keep.any():
        known = "".join(sorted(set(kinds.astype(str))))
        raise SettingsError(f"no fibre is left; the types of this product are {known}")
    return spectra[keep]


def brightest(spectra: FibreSpectra, count: int) -> FibreSpectra:
    """Return the program fibres of the highest signal-to-noise ratio, in trace order."""
    program = np.asarray(spectra.fibres["TYPE"]).astype(str) != "S"
    ratio = np.array([one.snr for one in spectra])
    ratio[~np.isfinite(ratio) | (~program if program.any() else False)] = -np.inf
    order = np.argsort(-ratio)[:count]
    return spectra[np.sort(order[ratio[order] > -np.inf])]
