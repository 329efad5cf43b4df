"""Valid frames, lists and files, spoilt at random from fixed seeds.

Whatever is done to them, a run ends with an exit code and a message, never with a traceback or an
internal error; a product that is written can be read, is finite where its DQ says good, and, when
its quality control passed, is close to the truth.

KSPEC_FUZZ_CASES sets the number of cases (100), KSPEC_FUZZ_FIRST the first seed (0).
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kspecpipe.io import read_product
from kspecpipe.signal import Signal

CASES = int(os.environ.get("KSPEC_FUZZ_CASES", "100"))
FIRST = int(os.environ.get("KSPEC_FUZZ_FIRST", "0"))
CHUNK = 20

#: Limits as the shipped instruments have them: a product that passes them claims to be right.
LIMITS = {
    "mbias": {
        "qc": {
            "READ NOISE RATIO": {"fail": [0.7, 1.4]},
            "BIAS DRIFT": {"fail": [0, 5]},
            "REJECTED": {"fail": [0, 0.3]},
            "LIGHT LEAK": {"fail": [-1, 3]},
        }
    },
    "mdark": {
        "qc": {
            "DARK RATE": {"fail": [0, 1]},
            "HOT FRACTION": {"fail": [0, 0.1]},
            "UNSTABLE FRACTION": {"fail": [0, 0.1]},
            "DEAD FRACTION": {"fail": [0, 0.1]},
        }
    },
}
TRUTH = {"MASTER_BIAS": (600.0, 12.0), "MASTER_DARK": (0.5, 0.6)}
WORDS = [
    b"0",
    b"-1",
    b"1E400",
    b"NaN",
    b"'../../x'",
    b"'",
    b"T",
    b"99999999999999999999",
    b"'DARK'",
    b"'BIAS'",
    b"2.5",
    b"",
    b"'\\x00'",
    b"(1,2)",
    b"16",
    b"-32",
    b"'0001-01-01'",
    b"1e-300",
]

Spoil = Callable[[bytes, np.random.Generator], bytes]


def header_end(raw: bytes) -> int:
    """Return where the data of a FITS file start, or its length."""
    found = raw.find(b"END" + b" " * 77)
    return len(raw) if found < 0 else -(-(found + 80) // 2880) * 2880


def any_card(raw: bytes, rng: np.random.Generator) -> int:
    return 80 * int(rng.integers(0, max(1, raw.find(b"END" + b" " * 77) // 80 or 1)))


def new_value(raw: bytes, rng: np.random.Generator) -> bytes:
    at = any_card(raw, rng)
    key = raw[at : at + 8].ljust(8)
    card = key + b"= " + WORDS[rng.integers(len(WORDS))].rjust(int(rng.choice([1, 20])))
    return raw[:at] + card.ljust(80)[:80] + raw[at + 80 :]


def broken_card(raw: bytes, rng: np.random.Generator) -> bytes:
    at = any_card(raw, rng)
    kinds = [b"HIERARCH PI X 'open", b"CONTINUE  D:\\x", b"CONTINUE", b"HIERARCH = = '=", b"=", b""]
    return raw[:at] + kinds[rng.integers(len(kinds))].ljust(80) + raw[at + 80 :]


def swapped_cards(raw: bytes, rng: np.random.Generator) -> bytes:
    a, b = sorted((any_card(raw, rng), any_card(raw, rng)))
    if a == b:
        return raw
    return raw[:a] + raw[b : b + 80] + raw[a + 80 : b] + raw[a : a + 80] + raw[b + 80 :]


def noise_in_header(raw: bytes, rng: np.random.Generator) -> bytes:
    out, end = bytearray(raw), min(header_end(raw), len(raw))
    for _ in range(int(rng.integers(1, 6))):
        out[rng.integers(0, max(end, 1))] = int(rng.integers(0, 256))
    return bytes(out)


def noise_in_data(raw: bytes, rng: np.random.Generator) -> bytes:
    start = min(header_end(raw), len(raw) - 1)
    out = bytearray(raw)
    a = int(rng.integers(start, len(raw)))
    b = min(len(raw), a + int(rng.integers(1, 4000)))
    out[a:b] = rng.bytes(b - a)
    return bytes(out)


def constant_in_data(raw: bytes, rng: np.random.Generator) -> bytes:
    start = min(header_end(raw), len(raw) - 1)
    a, b = sorted(rng.integers(start, len(raw) + 1, 2))
    fill = bytes([int(rng.choice([0, 255, 127]))])
    return raw[:a] + fill * int(b - a) + raw[b:]


def cut(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw[: int(rng.integers(0, len(raw)))]


def longer(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw + rng.bytes(int(rng.integers(1, 6000)))


def shifted(raw: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, len(raw)))
    return raw[:at] + rng.bytes(int(rng.integers(1, 5))) + raw[at:]


def text_noise(raw: bytes, rng: np.random.Generator) -> bytes:
    out = raw
    letters = b"\n\r\t \"'#:~$[]{}!&*-=0aZ\\/\x00\xff\xc3\xa9"
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(out) + 1))
        letter = letters[rng.integers(len(letters))]
        how = rng.integers(3)
        out = out[:at] + (b"" if how == 1 else bytes([letter])) + out[at + (how != 0) :]
    return out


def text_lines(raw: bytes, rng: np.random.Generator) -> bytes:
    lines = raw.split(b"\n")
    a, b = rng.integers(0, len(lines), 2)
    if rng.random() < 0.5:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines.insert(int(a), lines[b])
    return b"\n".join(lines)


FRAME: list[Spoil] = [
    new_value,
    new_value,
    broken_card,
    swapped_cards,
    noise_in_header,
    noise_in_data,
    constant_in_data,
    cut,
    longer,
    shifted,
]
TEXT: list[Spoil] = [text_noise, text_lines]


@pytest.fixture(scope="module")
def valid(tmp_path_factory, new_camera):
    """Return the content of all files of a small, good night, by name."""
    camera = new_camera(tmp_path_factory.mktemp("valid"))
    biases = camera.biases(5)
    camera.sof_of(biases, name="mbias.sof")
    darks = [camera.dark(), camera.dark(), camera.dark(200.0)]
    bias = camera.run("mbias", camera.folder / "mbias.sof").products[0][0]
    bias.rename(camera.folder / "master.fits")
    camera.sof_of(darks, "DARK", "master.fits MASTER_BIAS", name="mdark.sof")
    assert camera.instrument
    return {path.name: path.read_bytes() for path in camera.folder.iterdir() if path.is_file()}


def spoil(valid: dict[str, bytes], recipe: str, rng: np.random.Generator) -> dict[str, bytes]:
    """Return the files of a recipe with one of them spoilt."""
    used = {f"{recipe}.sof", "tiny.yaml"}
    used |= {n for n in valid if n.startswith("bias" if recipe == "mbias" else "dark")}
    used |= {"master.fits"} if recipe == "mdark" else set()
    files = {name: valid[name] for name in sorted(used)}
    frames = [name for name in files if name.endswith(".fits")]
    texts = [name for name in files if not name.endswith(".fits")]
    name = str(rng.choice(frames if rng.random() < 0.75 else texts))
    kinds = FRAME if name in frames else TEXT
    for _ in range(int(rng.integers(1, 4))):
        files[name] = kinds[rng.integers(len(kinds))](files[name], rng) or b" "
    return files


def complaint(outcome, folder: Path) -> str | None:
    """Return what is wrong with the way in which a run ended, or None."""
    text = "\n".join(outcome.errors)
    code = int(outcome.exit_code)
    if "internal error" in text:
        return text
    if bool(outcome.products) != (code in (0, 4)):
        return f"exit code {code} with products {outcome.products}"
    if code not in (0, 4) and not text.strip():
        return f"exit code {code} without a message"
    left = [p.name for p in folder.rglob("*") if p.suffix in (".part", ".fits")]
    if sorted(left) != sorted(path.name for path, _ in outcome.products):
        return f"left behind: {left}"
    for path, catg in outcome.products:
        wrong = distrust(path, catg, judged=code == 0)
        if wrong:
            return f"{path.name}: {wrong}"
    return None


def distrust(path: Path, catg: str, *, judged: bool) -> str | None:
    """Return why a product that was written is not to be trusted, or None."""
    product = read_product(path)
    signal = getattr(product, "image", None)
    if not isinstance(signal, Signal):
        return None
    usable = (signal.dq & np.uint16(1 | 8 | 32 | 64)) == 0
    if not np.isfinite(signal.value[usable]).all():
        return "not finite where DQ says good"
    if not np.isfinite(signal.variance[usable]).all() or (signal.variance[usable] < 0).any():
        return "variance not finite where DQ says good"
    if not usable.any():
        return "no pixel is good"
    level, tolerance = TRUTH[catg]
    plain = signal.dq == 0
    wrong = np.abs(signal.value[plain] - level) > tolerance
    if judged and wrong.mean() > 0.02:
        return f"{wrong.mean():.0%} of the good pixels are wrong, and QC passed"
    return None


def run_case(camera, valid, seed: int) -> str | None:
    rng = np.random.default_rng(seed)
    recipe = ("mbias", "mdark")[seed % 2]
    folder = camera.folder / str(seed)
    folder.mkdir()
    for name, content in spoil(valid, recipe, rng).items():
        (folder / name).write_bytes(content)
    try:
        outcome = camera.run(
            recipe,
            folder / f"{recipe}.sof",
            output=folder / "out",
            instrument=str(folder / "tiny.yaml"),
            settings=LIMITS,
        )
    except Exception as error:  # noqa: BLE001 - nothing at all may come out of a run
        return f"{type(error).__name__}: {error}"
    return complaint(outcome, folder / "out")


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, CHUNK))
def test_spoilt_input_ends_in_a_message_or_a_product_that_is_right(camera, valid, first):
    found = {seed: run_case(camera, valid, seed) for seed in range(first, first + CHUNK)}
    assert not {seed: text for seed, text in found.items() if text}


def test_the_files_are_good_before_they_are_spoilt(camera, valid):
    for name, content in valid.items():
        (camera.folder / name).write_bytes(content)
    for recipe in ("mbias", "mdark"):
        out = camera.folder / recipe
        outcome = camera.run(recipe, camera.folder / f"{recipe}.sof", output=out, settings=LIMITS)
        assert int(outcome.exit_code) == 0, outcome.errors
        assert complaint(outcome, out) is None
