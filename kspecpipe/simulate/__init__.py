"""A fibre spectrograph with known truth; shares no code or model with the reduction."""

from kspecpipe.simulate.exposure import Exposure, take_frame
from kspecpipe.simulate.listings import RawFile
from kspecpipe.simulate.night import Night, simulate_night
from kspecpipe.simulate.plan import FrameCounts, NightPlan, Traps

__all__ = [
    "Exposure",
    "FrameCounts",
    "Night",
    "NightPlan",
    "RawFile",
    "Traps",
    "simulate_night",
    "take_frame",
]
