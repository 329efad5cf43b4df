"""Whether a wavelength solution is to be trusted, and what is wrong if not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kspecpipe.errors import IdentificationError
from kspecpipe.signal import FloatArray
from kspecpipe.wavelength.identify import Alignment, Identification, identify, place_lines
from kspecpipe.wavelength.linelist import LineList
from kspecpipe.wavelength.peaks import Peaks, compress
from kspecpipe.wavelength.predict import Prediction
from kspecpipe.wavelength.rounds import Groups, Progress
from kspecpipe.wavelength.scene import Scene, lost_cores
from kspecpipe.wavelength.span import typical_error


class WavelengthError(IdentificationError):
    """There is no trustworthy wavelength solution.

    Parameters
    ----------
    message : str
        What was found and expected.
    diagnostics : dict
        The numbers behind it, such as ``peaks``, ``identification`` or those of the solution.
    spectrum : ndarray, shape (nx,), optional
        Compressed stack of the fibres, for a picture of why.
    places : dict, optional
        Where lines lie in it [pixel].
    """

    def __init__(
        self,
        message: str,
        diagnostics: Mapping[str, object],
        spectrum: FloatArray | None = None,
        places: Mapping[str, FloatArray] | None = None,
    ) -> None:
        shown = {name: place.tolist() for name, place in (places or {}).items()}
        light = [] if spectrum is None else spectrum.tolist()
        super().__init__(message, light, shown, ("column [pixel]", "compressed sum of all fibres"))
        self.diagnostics = dict(diagnostics)


@dataclass(frozen=True)
class TrustLimits:
    """What a trustworthy solution shows.

    Parameters
    ----------
    peaks : int
        Emission lines in the stacked arc.
    margin : float
        Lead of the best alignment over the next.
    explained, found : float
        Smallest fraction of the peaks that are lines, and of expected lines that are there.
    groups : int
        Lines or blends used.
    coverage : float
        Fraction of the chip between the first and the last.
    held_out : float
        Largest typical distance of a line from where the others put it, bright lines first [pixel].
    agreeing : float
        Smallest weighted fraction of the bright listed lines that agree with the solution.
    span_error, error : float
        Claimed error beyond which the outermost lines are left out, and largest one between those
        that are left [pixel].
    few, few_doubt : float
        With fewer lines than this nothing but their own agreement speaks for a solution: distance
        of lines left out and claimed error, added, must stay below the second number [pixel].
    shape_error, shape_agreement : float
        When the model misses the cores of lines by more than this fraction, the LSF is not
        understood (most often because all bright lines are saturated), and lines left out must
        land this near, with a claimed error as small [pixel].
    """

    peaks: int = 4
    margin: float = 0.02
    explained: float = 0.25
    found: float = 0.4
    groups: int = 4
    coverage: float = 0.3
    held_out: float = 0.3
    agreeing: float = 0.6
    span_error: float = 0.125
    error: float = 0.2
    few: float = 10
    few_doubt: float = 0.33
    shape_error: float = 0.04
    shape_agreement: float = 0.2


def check_identification(
    found: Identification | None,
    peaks: Peaks,
    spectrum: FloatArray,
    lines: LineList,
    prediction: Prediction,
    limits: TrustLimits,
) -> Identification:
    """Return the identification when it can be trusted.

    Raises
    ------
    WavelengthError
        With what was found and what was expected.
    """
    low, high = prediction.wavelength[[0, -1]]

    def refusal(reason: str) -> WavelengthError:
        numbers = {"peaks": peaks, "identification": found}
        places = _candidates(found, peaks, lines, prediction)
        return WavelengthError(reason, numbers, spectrum, places)

    if len(peaks) < limits.peaks:
        raise refusal(
            f"{len(peaks)} emission lines found in the stacked arc; at least {limits.peaks} are "
            f"needed, and the line list has {len(lines.between(low, high))} between {low:.0f} and "
            f"{high:.0f} Angstrom. "
            "Is this an arc, and were the lamps on?"
        )
    if found is None:
        raise refusal(
            f"None of the alignments within +-{prediction.shift_range:.0f} pixels matches three of "
            f"the {len(peaks)} emission lines found. {_ADVICE}"
        )
    best = found.best
    if found.margin < limits.margin:
        raise refusal(
            f"Two alignments of the line list fit the arc equally well (margin {found.margin:.3f}; "
            f"at least {limits.margin:.3f} is needed). {_ADVICE}"
        )
    if best.explained < limits.explained or best.found < limits.found:
        mirrored = _fits_mirrored(spectrum, peaks, lines, prediction, best.score)
        hint = (
            "The mirrored spectrum fits much better: is the orientation right?"
            if mirrored
            else _ADVICE
        )
        raise refusal(
            f"The best alignment explains {best.explained:.0%} of the arc's {len(peaks)} lines and "
            f"finds {best.found:.0%} of those expected; {limits.explained:.0%} and "
            f"{limits.found:.0%} are needed. {hint}"
        )
    return found


_ADVICE = (
    "Do grating and central wavelength in the header, the lamps and the line list belong to this "
    "arc? Give ARC_LINES or a prediction that is nearer."
)


def _candidates(
    found: Identification | None, peaks: Peaks, lines: LineList, prediction: Prediction
) -> dict[str, FloatArray]:
    """Where the peaks are, and the lines that the best alignments match with them [pixel]."""
    places = {"peaks": peaks.x}
    alignments: tuple[Alignment | None, ...] = (found.best, found.rival) if found else ()
    for alignment in alignments:
        if alignment is not None:
            matched = lines.wavelength[alignment.line]
            name = f"lines, {'best' if len(places) == 1 else 'next-best'} alignment"
            places[f"{name}, score {alignment.score:.2f}"] = place_lines(
                prediction, matched, alignment.coefficients
            )
    return places


def _fits_mirrored(
    spectrum: FloatArray, peaks: Peaks, lines: LineList, prediction: Prediction, score: float
) -> bool:
    """Tell if the spectrum fits better the other way round."""
    turned = Peaks(
        (prediction.nx - 1 - peaks.x)[::-1],
        *(column[::-1] for column in (peaks.height, peaks.snr, peaks.fwhm, peaks.blur)),
    )
    other = identify(spectrum[::-1], turned, lines, prediction)
    return other is not None and other.best.score > 1.5 * score


def judge_solution(
    scene: Scene, state: Progress, found: Identification, peaks: Peaks
) -> dict[str, object]:
    """Numbers that describe a solution."""
    groups, dispersion = state.groups, state.dispersion
    assert groups is not None
    assert groups.fit is not None
    used = groups.used
    middle = dispersion.position(groups.wavelength)[dispersion.nfib // 2]
    held = groups.fit.held_out[used]
    weight = compress(groups.snr)
    sharp = 1 / (groups.fit.held_out_variance + groups.common**2 + 0.03**2)[used]
    trusted = np.bincount(state.model.group, state.parts.trusted * state.model.intensity) > 0.8 * (
        np.bincount(state.model.group, state.model.intensity) + 1e-9
    )
    bright = trusted & (groups.snr > 20) & ((groups.common < 0.25) | (groups.snr > 100))
    apart = np.abs(
        np.average(
            groups.position - dispersion.position(groups.wavelength),
            axis=0,
            weights=groups.weight + 1e-12,
        )
    )
    measured = groups.weight.sum(axis=0) > 0
    agree = measured & (apart < 0.3 + 3 * groups.common)
    residual = groups.position - dispersion.position(groups.wavelength)
    in_use = (groups.weight > 0) & used
    factors = species_ratios(scene, state)
    return {
        "margin": found.margin,
        "score": found.best.score,
        "explained": found.best.explained,
        "found": found.best.found,
        "n_peaks": len(peaks),
        "n_identified": int(found.best.peak.size),
        "n_groups": int(bright.sum()),
        "n_used": int(used.sum()),
        "n_sharp": int(np.sum(_total_error(groups)[used] < 0.15)),
        "model_error": state.model.floor,
        "coverage": float(np.ptp(middle[used]) / scene.nx) if used.any() else 0.0,
        "range": (float(groups.wavelength[used].min()), float(groups.wavelength[used].max()))
        if used.any()
        else (np.nan, np.nan),
        "rms": float(np.sqrt(np.mean(residual[in_use] ** 2))) if in_use.any() else np.nan,
        "held_out": float(np.sqrt(np.average(held**2, weights=sharp))) if used.any() else np.nan,
        "agreeing": float(np.sum(weight[bright & agree]) / max(np.sum(weight[bright]), 1e-9)),
        "error": _largest_error(state, middle[used]),
        "common_error": state.common_floor,
        "chi2": state.chi2,
        "jitter": float(np.std(dispersion.jitter[np.unique(scene.fibre), 0])),
        "fibres_used": np.unique(scene.fibre),
        "species_ratio": factors,
        "lamps_off": tuple(name for name, ratio in factors.items() if ratio < 0.01),
        "unknown_lines": state.parts.wavelength[state.parts.species == ""],
    }


def _total_error(groups: Groups) -> FloatArray:
    """Error (n_group,) of each group's position, all fibres together [pixel]."""
    photon = 1 / np.maximum(groups.weight.sum(axis=0), 1e-12)
    return np.asarray(np.sqrt(groups.common**2 + photon))


def _largest_error(state: Progress, position: FloatArray) -> float:
    """Largest claimed error of the typical fibre between the outermost lines [pixel]."""
    if not position.size:
        return float("nan")
    return float(np.max(typical_error(state, np.linspace(position.min(), position.max(), 60))))


def species_ratios(scene: Scene, state: Progress) -> dict[str, float]:
    """Flux of each lamp found over expected, the median lamp being 1; NaN without a lamp.

    A line that has lost its core in every fibre tells no flux: its lamp is not off but too bright.
    """
    parts, flux = state.parts, state.model.intensity
    position = state.row_positions(scene, parts.wavelength)
    lost = lost_cores(scene, position, state.model.lsf.basis.fwhm).all(axis=0)
    known = parts.trusted & np.isfinite(parts.intensity) & ~lost
    ratio = np.where(known, flux / np.where(known, parts.intensity, 1.0), np.nan)
    ratios = {}
    for name in np.unique(parts.species[known]):
        # The brighter half of a lamp's lines: the flux of faint ones is that of their neighbours.
        mine = known & (parts.species == name)
        bright = mine & (parts.intensity >= np.median(parts.intensity[mine]))
        ratios[str(name)] = float(np.median(ratio[bright]))
    typical = np.median([r for r in ratios.values() if r > 0]) if any(ratios.values()) else np.nan
    return {name: float(ratio / typical) for name, ratio in ratios.items()}


def check_solution(
    diagnostics: Mapping[str, object], state: Progress, spectrum: FloatArray, limits: TrustLimits
) -> None:
    """Refuse a solution that its own lines contradict; ``spectrum`` (nx,) is for the picture.

    Raises
    ------
    WavelengthError
        With every limit that is not kept.
    """
    numbers = {key: value for key, value in diagnostics.items() if isinstance(value, (int, float))}
    problems = []
    for key, limit, text in (
        ("n_used", limits.groups, "{0:.0f} lines agree on a solution; at least {1:.0f} are needed"),
        ("coverage", limits.coverage, "they cover {0:.0%} of the chip; at least {1:.0%} is needed"),
        ("agreeing", limits.agreeing, "{0:.0%} of the bright lines agree; at least {1:.0%} must"),
    ):
        if not numbers[key] >= limit:
            problems.append(text.format(numbers[key], limit))
    if not numbers["held_out"] <= limits.held_out:
        problems.append(
            f"lines left out of the fit land {numbers['held_out']:.2f} pixels from where they are; "
            f"at most {limits.held_out:.2f} is allowed"
        )
    if not numbers["error"] <= limits.error:
        problems.append(
            f"its error between the outermost lines reaches {numbers['error']:.2f} pixels; at most "
            f"{limits.error:.2f} is allowed"
        )
    doubt = numbers["held_out"] + numbers["error"]
    if numbers["n_used"] < limits.few and not doubt <= limits.few_doubt:
        problems.append(
            f"its {numbers['n_used']:.0f} lines leave {doubt:.2f} pixels of doubt; fewer than "
            f"{limits.few:.0f} lines may leave {limits.few_doubt:.2f}"
        )
    agreement = max(numbers["held_out"], numbers["error"])
    if numbers["model_error"] > limits.shape_error and not agreement <= limits.shape_agreement:
        problems.append(
            f"the shape of the lines is known to {numbers['model_error']:.0%} only. Are the bright "
            "lines saturated? A shorter exposure in addition would help"
        )
    if problems:
        raise WavelengthError(
            f"No trustworthy wavelength solution: {'; '.join(problems)}. {_ADVICE}",
            {**diagnostics, "groups": state.groups},
            spectrum,
            _lines_of(state),
        )


def _lines_of(state: Progress) -> dict[str, FloatArray]:
    """Where the lines are that take part in a solution, and bright ones that do not [pixel]."""
    groups = state.groups
    if groups is None:
        return {}
    place = state.dispersion.position(groups.wavelength)[state.dispersion.nfib // 2]
    chip = (place > 0) & (place < 2 * state.dispersion.half)
    bright = chip & (groups.snr > 20) & ~groups.used
    return {"lines that agree": place[groups.used], "bright lines that do not": place[bright]}
