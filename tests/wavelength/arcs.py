"""Arc spectra with known truth: another hand than the code under test.

Wavelengths come from the grating equation with an included angle and a distorted camera, the LSF is
a Gaussian core with two one-sided exponential tails towards the blue, integrated over pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf, erfcx

#: lines/mm, nominal centre [A], true dispersion [A/pixel] of the middle.
MODES = {
    "150_620": (150, 6200.0),
    "300_490": (300, 4900.0),
    "600_430": (600, 4300.0),
    "600_450": (600, 4500.0),
    "600_680": (600, 6800.0),
}
#: Lines of the lamps which are not in the list that the pipeline has.
UNLISTED = [
    (4500.98, "Kr", 0.1),
    (4680.14, "Kr", 0.1),
    (4807.02, "Kr", 0.1),
    (5562.2253, "Kr", 1.0),
    (5870.916, "Kr", 12.0),
    (6096.1631, "Ne", 50.0),
    (6128.4499, "Ne", 8.0),
    (6456.288, "Kr", 1.0),
    (7173.94, "Ne", 0.0),
    (7206.98, "Ar", 1.0),
    (7943.18, "Ne", 3.0),
    (8118.55, "Ne", 2.0),
]


@dataclass(frozen=True)
class Recipe:
    """What is put into a simulated arc."""

    mode: str = "150_620"
    nfib: int = 14
    nx: int = 1340
    shift: float = 12.0  # pixel, zero point of the header's prediction
    scale: float = 1.06  # true over predicted dispersion
    distortion: tuple[float, float, float] = (0.1, 0.5, 0.06)  # pixel at the edge: u^2, u^3, u^5
    angle: float = -20.0  # diffraction angle at the centre [deg]
    tilt: float = 2.7  # pixel, first to last fibre
    bend: float = 0.3
    jitter: float = 0.02
    fibre_scale: float = 0.05  # pixel at the edge, first to last fibre
    core: float = 1.55  # Gaussian sigma [pixel]
    tails: tuple[tuple[float, float], ...] = ((0.35, 2.0), (0.05, 4.0))  # fraction, length [pixel]
    lsf_slope: float = 0.1  # relative growth of the LSF from centre to edge
    brightness: float = 3e5  # electrons of a line of strength 1000 and a fibre of throughput 1
    lamp_scatter: float = 0.7  # sigma of ln(lamp ratio)
    line_scatter: float = 0.3
    off: tuple[str, ...] = ()
    lamps: tuple[str, ...] = ("Hg", "Ar", "Ne", "Kr", "Cd")
    hump: float = 150.0  # electrons per pixel
    ron: float = 10.0  # of an extracted sample
    saturation: float = np.inf  # electrons of a sample
    second_order: float = 0.04
    noise: bool = True
    seed: int = 1
    noise_seed: int = 0
    exposure: float = 1.0
    dead: tuple[int, ...] = ()
    unlisted: bool = True


@dataclass(frozen=True)
class Arc:
    """A simulated arc and its truth."""

    value: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray
    wavelength: np.ndarray  # truth (nfib, nx)
    lsf: np.ndarray  # true FWHM, Angstrom
    prediction: dict = field(default_factory=dict)
    lines: tuple = ()  # wavelength, peak S/N in a typical fibre, species
    live: np.ndarray = None


def true_wavelength(recipe, x, fibre):
    """Wavelength at pixel x of a fibre (fractional index; broadcasts)."""
    grooves, centre = MODES[recipe.mode]
    rng = np.random.default_rng(recipe.seed + 77)
    jitter = recipe.jitter * rng.standard_normal(recipe.nfib)
    half = (recipe.nx - 1) / 2
    v = 2 * fibre / max(recipe.nfib - 1, 1) - 1
    slit = recipe.tilt * v / 2 + recipe.bend * v**2 + jitter[np.asarray(fibre, int)]
    u = (x - half) / half
    a2, a3, a5 = recipe.distortion
    camera = a2 * u**2 + a3 * (u**3 - u) + a5 * u**5 + recipe.fibre_scale * u * v / 2
    spacing = 1e7 / grooves
    pixel = 0.02
    nominal = 23.0 * 1200 / grooves * pixel
    beta0 = np.deg2rad(recipe.angle)
    focal = spacing * np.cos(beta0) * pixel / (nominal * recipe.scale)
    included = np.deg2rad(25.0)
    alpha = np.arcsin(centre / spacing / (2 * np.cos(included / 2))) + included / 2
    tune = centre / spacing - np.sin(alpha) - np.sin(beta0)
    beta = beta0 + np.arctan((x - half - recipe.shift - slit - camera) * pixel / focal)
    return spacing * (np.sin(alpha) + np.sin(beta) + tune)


def tail_cdf(t, sigma, length):
    """Integral from -inf to t of a Gaussian convolved with a tail of exp(t/length), t < 0."""
    if length == 0:
        return 0.5 * (1 + erf(t / sigma / np.sqrt(2)))
    s = -t  # tail towards positive s
    k = 1 / length
    gauss = 0.5 * (1 + erf(s / sigma / np.sqrt(2)))
    arg = (sigma * k - s / sigma) / np.sqrt(2)
    expo = np.where(
        arg > -20,
        0.5 * np.exp(-0.5 * (s / sigma) ** 2) * erfcx(np.maximum(arg, -20)),
        np.exp(np.minimum(-k * s + 0.5 * (sigma * k) ** 2, 0)),
    )
    return 1 - (gauss - expo)


def lsf_cdf(recipe, t, width):
    """Cumulative LSF around its flux centroid; ``width`` scales it."""
    fractions = [1 - sum(a for a, _ in recipe.tails), *(a for a, _ in recipe.tails)]
    lengths = [0.0, *(b for _, b in recipe.tails)]
    centroid = -sum(a * b for a, b in zip(fractions, lengths, strict=True))
    z = t / width + centroid
    return sum(a * tail_cdf(z, recipe.core, b) for a, b in zip(fractions, lengths, strict=True))


def lsf_fwhm(recipe):
    """FWHM of the pixel-integrated LSF of width 1 [pixel]."""
    t = np.arange(-40, 40, 0.01)
    shape = lsf_cdf(recipe, t + 0.5, 1.0) - lsf_cdf(recipe, t - 0.5, 1.0)
    return 0.01 * np.sum(shape > shape.max() / 2)


def lamp_lines(recipe, table, rng):
    """Lines of the lamps that burn: wavelength, species, strength."""
    wavelength, species, strength = (np.array(c) for c in table)
    unknown = ~np.isfinite(strength)
    strength = np.where(unknown, 10 ** rng.uniform(-2, 0.3, strength.size), strength)
    if recipe.unlisted:
        extra = [e for e in UNLISTED if e[2] > 0]
        wavelength = np.append(wavelength, [e[0] for e in extra])
        species = np.append(species, [e[1] for e in extra])
        strength = np.append(strength, [e[2] for e in extra])
    strength = strength * np.exp(recipe.line_scatter * rng.standard_normal(strength.size))
    factor = {s: np.exp(recipe.lamp_scatter * rng.standard_normal()) for s in sorted(set(species))}
    for name in factor:
        if name in recipe.off or name not in recipe.lamps:
            factor[name] = 0.0
    strength = strength * np.array([factor[s] for s in species])
    second = recipe.second_order * strength * (wavelength < 4600)
    return (
        np.append(wavelength, 2 * wavelength),
        np.append(species, species),
        np.append(strength, second),
        np.arange(2 * wavelength.size) < wavelength.size,
    )


def expose(recipe, table):
    """Simulate the extracted spectra of an arc."""
    rng = np.random.default_rng(recipe.seed)
    wavelength, species, strength, first = lamp_lines(recipe, table, rng)
    x = np.arange(recipe.nx, dtype=float)
    half = (recipe.nx - 1) / 2
    fibres = np.arange(recipe.nfib)
    truth = true_wavelength(recipe, x[None, :], fibres[:, None])
    throughput = np.exp(0.25 * rng.standard_normal(recipe.nfib))
    throughput[list(recipe.dead)] = 0.0
    fine = np.arange(-30, recipe.nx + 30, 0.25)
    value = np.zeros((recipe.nfib, recipe.nx))
    offsets = np.arange(-45, 46)
    peak = np.zeros(wavelength.size)
    for f in fibres:
        position = np.interp(wavelength, true_wavelength(recipe, fine, f), fine, np.nan, np.nan)
        # One Newton step makes the interpolated position exact.
        slope = (
            true_wavelength(recipe, position + 0.01, f)
            - true_wavelength(recipe, position - 0.01, f)
        ) / 0.02
        position = position - (true_wavelength(recipe, position, f) - wavelength) / slope
        on = np.isfinite(position) & (strength > 0)
        p, s = position[on], strength[on]
        u = (p - half) / half
        pixel = np.rint(p).astype(int)[:, None] + offsets
        width = (1 + recipe.lsf_slope * u)[:, None]
        t = pixel - p[:, None]
        shape = lsf_cdf(recipe, t + 0.5, width) - lsf_cdf(recipe, t - 0.5, width)
        colour = 1 + 0.1 * np.sin(f) * u
        flux = recipe.brightness * recipe.exposure * throughput[f] * s / 1000 * colour
        inside = (pixel >= 0) & (pixel < recipe.nx)
        lines = flux[:, None] * shape
        np.add.at(value[f], pixel[inside], lines[inside])
        peak[on] += lines.max(axis=1) / recipe.nfib
        hump = np.exp(-0.5 * ((truth[f] - 4600) / 250) ** 2) + 0.1
        value[f] += recipe.hump * recipe.exposure * throughput[f] * hump
    variance = recipe.ron**2 + np.maximum(value, 0)
    saturated = value > recipe.saturation
    if recipe.noise:
        noise = np.random.default_rng([recipe.seed, recipe.noise_seed])
        value = value + np.sqrt(variance) * noise.standard_normal(value.shape)
    value = np.minimum(value, recipe.saturation)
    step = np.gradient(truth, axis=1)
    u = (x - half) / half
    grooves, centre = MODES[recipe.mode]
    return Arc(
        value,
        variance,
        saturated,
        truth,
        lsf_fwhm(recipe) * (1 + recipe.lsf_slope * u) * step,
        {
            "lines": grooves,
            "centre": centre,
            "nx": recipe.nx,
            "focal_length": 320.0,
            "pixel": 0.02,
            "dispersion": 23.0,
            "dispersion_lines": 1200.0,
        },
        (wavelength, peak / np.sqrt(recipe.ron**2 + peak), species, first),
        throughput > 0,
    )
