"""What mflat declares beside the numerics that it calls."""

import pytest

from kspecpipe.base_recipe import find_recipe


@pytest.mark.parametrize(("recipe", "frames"), [("tlm", 3), ("mflat", 5)])
def test_more_flats_are_recommended_for_a_fibre_flat_than_for_traces(recipe, frames):
    assert find_recipe(recipe).Inputs.specs["flats"].recommended == frames
