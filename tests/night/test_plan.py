"""Which jobs a night becomes, and which calibrations they take."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from memory_nights import best, frame, night, product

from kspecpipe.base_recipe import find_recipe, recipe_names
from kspecpipe.errors import SettingsError
from kspecpipe.framework.outcome import RunOptions
from kspecpipe.night.associate import Level
from kspecpipe.night.chain import in_order, load_chain, needs, only, until
from kspecpipe.night.session import Selection, Session

MODES = ("150_620", "300_490", "600_680")


def counted(plan):
    return Counter(job.recipe.name for job in plan.jobs)


def test_the_chain_follows_from_what_recipes_make_and_take():
    names = [recipe.name for recipe in load_chain().recipes]
    order = ["mbias", "mdark", "mflat", "marc", "object"]
    assert [name for name in names if name in order] == order
    assert "rebin" not in names
    assert "tlm" not in names


def test_no_recipe_waits_for_its_like():
    for recipe in load_chain().recipes:
        assert recipe not in needs(recipe, load_chain().recipes)


def test_until_takes_a_recipe_and_all_that_it_needs():
    names = {recipe.name for recipe in until(load_chain().recipes, "mflat")}
    assert names == {"mbias", "mdark", "lflat", "mflat"}


def test_unknown_recipe_is_refused_with_its_nearest_name():
    with pytest.raises(SettingsError, match="mflat"):
        only(load_chain().recipes, ["mfalt"])


def test_recipes_that_wait_for_each_other_are_refused():
    chain = load_chain().recipes
    mbias = next(recipe for recipe in chain if recipe.name == "mbias")
    mdark = next(recipe for recipe in chain if recipe.name == "mdark")
    circle = type("Circle", (mbias,), {"Inputs": mdark.Inputs, "Products": mdark.Products})
    taker = type(
        "Taker",
        (mdark,),
        {
            "Products": mbias.Products,
            "Inputs": type(
                "Inputs",
                (mdark.Inputs,),
                {"other": replace(mdark.Inputs.specs["master_bias"], tag="MASTER_DARK")},
            ),
        },
    )
    with pytest.raises(SettingsError, match="circle"):
        in_order([circle, taker])


def test_a_night_of_three_modes_becomes_one_job_a_group_and_one_an_exposure(planned):
    plan = planned(night(modes=MODES, objects=6))
    expected = {"mbias": 1, "mdark": 1, "mflat": 3, "marc": 3, "object": 18, "coadd": 3}
    assert counted(plan) == expected
    assert plan.gaps == ()
    assert len({job.name for job in plan.jobs}) == len(plan.jobs)
    products = [one.path for job in plan.jobs for one in job.products]
    assert len(set(products)) == len(products)


def test_every_job_takes_the_calibrations_of_its_night_and_mode(planned):
    plan = planned(night(modes=MODES))
    for job in plan.jobs:
        for slot in job.slots:
            for choice in slot.ranked[:1]:
                assert choice.level == Level.SAME_NIGHT
                if "mode" in slot.spec.match or slot.spec.tag == "TRAMLINE_MAP":
                    assert choice.candidate.values["mode"] == job.wish.values["mode"]


def test_hot_and_cold_pixels_both_go_into_an_object(planned):
    found = best(planned(night()), "object", "BAD_PIXEL_MAP")
    assert {name.rsplit("_", 1)[1] for name in found} == {"mdark.fits", "mflat.fits"}


def test_names_of_products_are_those_that_recipes_write(planned):
    plan = planned(night())
    names = {one.path.name for job in plan.jobs for one in job.products}
    assert {
        "20260129_slow_master_bias.fits",
        "20260130_slow_2400s_master_dark.fits",
        "20260129_150_620_fibre_flat.fits",
        "20260129_150_620_wave_solution.fits",
        "20260129_150_620_reduced_tile_046_213000.fits",
    } <= names


def test_the_assignment_is_found_by_the_tile_of_the_object(planned):
    for job in planned(night()).jobs:
        expected = {"ASSIGN"} if job.recipe.name == "object" else set()
        assert set(job.user) == expected


def test_of_two_assignments_the_nearest_is_taken(planned):
    near, far = Path("/night/raw/tile_046.assign.txt"), Path("/night/old/tile_046.assign.txt")
    plan = planned(night(), {"tile_046.assign.txt": (far, near)})
    assert {job.user["ASSIGN"] for job in plan.jobs if job.user} == {near}


def test_a_missing_assignment_is_said_and_stops_nothing(planned):
    frames = [frame("OBJECT", 3, target="tile_007")]
    (job,) = [j for j in planned(night() + frames).jobs if j.notes]
    assert job.recipe.name == "object"
    assert "tile_007.assign.txt" in job.notes[0]
    assert "no sky is subtracted" in job.notes[0]


def test_too_few_frames_are_a_gap_and_another_night_steps_in(planned):
    first, second = night(), [f for f in night(days=1) if f.tag != "BIAS"]
    second += [frame("BIAS", 0, 1, exptime=0.0)]
    plan = planned(first + second)
    (gap,) = plan.gaps
    assert "1 BIAS" in gap.what
    assert "at least 3" in gap.why
    assert best(plan, "mdark", "MASTER_BIAS", 1) == ["20260129_slow_master_bias.fits"]


@pytest.mark.parametrize(
    ("days", "level"), [(2, Level.DAYS_3), (20, Level.DAYS_30), (200, Level.ANY)]
)
def test_levels_tell_how_far_a_calibration_is(planned, days, level):
    dark = [f for f in night(days=days) if f.tag == "DARK"]
    biases = [f for f in night() if f.tag == "BIAS"]
    (job,) = [j for j in planned(biases + dark).jobs if j.recipe.name == "mdark"]
    (slot,) = job.slots
    assert slot.ranked[0].level == level


def test_the_nearest_night_comes_first_and_the_others_are_kept_to_fall_back_to(planned):
    frames = [f for d in (0, 4, 9) for f in night(days=d) if f.tag == "BIAS"]
    dark = [f for f in night(days=5) if f.tag == "DARK"]
    (job,) = [j for j in planned(frames + dark).jobs if j.recipe.name == "mdark"]
    (slot,) = job.slots
    dates = [choice.candidate.path.name[:8] for choice in slot.ranked]
    assert dates == ["20260202", "20260207", "20260129"]


def test_arcs_borrow_the_traces_of_another_mode_of_the_night(planned):
    frames = [f for f in night(modes=MODES[:2]) if (f.tag, f.info.mode) != ("FLAT", "300_490")]
    plan = planned(frames)
    arcs = [job for job in plan.jobs if job.recipe.name == "marc"]
    traces = [slot for slot in arcs[1].slots if slot.spec.tag == "TRAMLINE_MAP"]
    assert arcs[1].mode == "300_490"
    assert traces[0].ranked[0].candidate.values["mode"] == "150_620"


def test_another_readout_mode_is_a_near_miss_that_says_why(planned):
    frames = [f for f in night() if f.tag != "BIAS"]
    frames += [frame("BIAS", i / 60, exptime=0.0, readmode="fast") for i in range(5)]
    plan = planned(frames)
    (job,) = [j for j in plan.jobs if j.recipe.name == "mdark"]
    (spec,) = [s.spec for s in job.slots]
    assert job.slots[0].ranked == ()
    ((name, why),) = plan.shelf.near_misses(spec, job.wish)
    assert name == "20260129_fast_master_bias.fits"
    assert why == "readmode is fast, slow is needed"


def test_a_failed_calibration_is_passed_over_unless_it_is_certified(planned):
    dark = [f for f in night(days=1) if f.tag == "DARK"]
    old = product("MASTER_BIAS", 0, days=-9)
    bad = product("MASTER_BIAS", 0, days=1, failed=("READ NOISE",), md5="bad")
    assert best(planned(dark, known=[old, bad]), "mdark", "MASTER_BIAS") == [old.path.name]
    certified = planned(dark, known=[old, bad], verdicts={"bad": ("certified", "it is fine")})
    assert best(certified, "mdark", "MASTER_BIAS") == [bad.path.name]


def test_what_an_earlier_run_made_and_was_rejected_is_noted(planned):
    made = next(j for j in planned(night()).jobs if j.recipe.name == "mbias").products[0]
    there = product("MASTER_BIAS", 0, name=made.path.name, recipe="mbias")
    plan = planned(night(), known=[there], verdicts={there.md5: ("rejected", "light leak")})
    (job,) = [job for job in plan.jobs if job.recipe.name == "mbias"]
    assert len(job.notes) == 1
    assert made.path.name in job.notes[0]
    assert "rejected: light leak" in job.notes[0]
    assert not planned(night(), known=[there]).jobs[0].notes


def test_a_recipe_that_cannot_be_loaded_is_not_planned_and_the_others_are(monkeypatch, planned):
    def load(name):
        if name == "odd":
            raise SettingsError("the recipe 'odd' cannot be loaded: no module")
        return find_recipe(name)

    names = [*recipe_names(), "odd"]
    monkeypatch.setattr("kspecpipe.night.chain.recipe_names", lambda: names)
    monkeypatch.setattr("kspecpipe.night.chain.find_recipe", load)
    recipes, broken = load_chain()
    assert "mflat" in {recipe.name for recipe in recipes}
    assert set(broken) == {"odd"}
    plan = planned(night(), broken=broken)
    assert "no module" in plan.unplanned["odd"]
    assert counted(plan)["mflat"] > 0
    with pytest.raises(SettingsError, match="no module"):
        Session(Path("/night/raw"), RunOptions(), Selection(only=("odd",)))


def test_a_rejected_calibration_is_never_taken(planned):
    dark = [f for f in night() if f.tag == "DARK"]
    good = product("MASTER_BIAS", 0, md5="good")
    plan = planned(dark, known=[good], verdicts={"good": ("rejected", "light leak")})
    (job,) = plan.jobs
    (slot,) = job.slots
    assert slot.ranked == ()
    assert plan.shelf.near_misses(slot.spec, job.wish) == [(good.path.name, "rejected: light leak")]


def test_what_the_user_gives_comes_before_all_others(planned):
    given = product("MASTER_BIAS", 0, days=-99, name="mine.fits")
    assert best(planned(night(), given=[given]), "mdark", "MASTER_BIAS") == ["mine.fits"]


def test_products_of_a_recipes_like_are_not_taken(planned):
    """Else a survey would be one long queue, and a night depend on what lies in the output."""
    old = product("WAVE_SOLUTION", 0, days=-1, recipe="marc")
    assert best(planned(night(), known=[old]), "marc", "WAVE_SOLUTION") == []


def test_existing_products_of_a_job_do_not_compete_with_it(planned):
    twin = product("MASTER_BIAS", 0, name="20260129_slow_master_bias.fits")
    (job,) = [j for j in planned(night(), known=[twin]).jobs if j.recipe.name == "mdark"]
    (slot,) = job.slots
    assert [choice.candidate.job for choice in slot.ranked] == ["20260129_slow_mbias"]


def test_two_nights_whose_frames_share_a_date_do_not_share_file_names(planned):
    # After midnight UTC of the first night and in the evening of the second: one UTC date.
    frames = [frame("FLAT", 5 + i / 60) for i in range(3)]
    frames += [frame("FLAT", 1 + i / 60, days=1) for i in range(3)]
    names = [one.path.name for job in planned(frames).jobs for one in job.products]
    assert len(names) == len(set(names))
    assert "20260130_150_620_fibre_flat.fits" in names
    assert "20260130_150_620_fibre_flat_210000.fits" in names


def test_products_of_another_night_in_the_output_are_not_overwritten(planned):
    other = product("FIBRE_FLAT", 5, days=0, name="20260130_150_620_fibre_flat.fits")
    frames = [frame("FLAT", 1 + i / 60, days=1) for i in range(3)]
    (job,) = planned(frames, known=[other]).jobs
    assert job.qualifier == "210000"


def test_equal_times_get_names_of_their_own_and_a_stuck_clock_is_said(planned):
    twins = [frame("OBJECT", 3, name=name) for name in ("a.fits", "b.fits", "c.fits")]
    plan = planned(night() + twins)
    names = [one.path for job in plan.jobs for one in job.products]
    (gap,) = plan.gaps
    assert len(names) == len(set(names))
    assert "c.fits" in gap.what
    assert "clock" in gap.why


def test_a_lone_test_flat_gives_way_to_a_full_set(planned):
    frames = night() + [frame("FLAT", 0.9, exptime=2.0)]
    plan = planned(frames)
    assert counted(plan)["mflat"] == 1
    (gap,) = plan.gaps
    assert "1 FLAT" in gap.what
    assert "5 others" in gap.why


def test_flats_of_two_lamps_go_together_whatever_their_exposure(planned):
    frames = [frame("FLAT", 1 + i / 60, lamp="qth") for i in range(3)]
    frames += [frame("FLAT", 2 + i / 60, lamp="d2", exptime=90.0) for i in range(3)]
    (job,) = planned(frames).jobs
    assert len(job.frames) == 6


def test_flux_calibration_is_planned_when_its_files_are_there(planned):
    plan = planned(night())
    assert "STD_CATALOG" in plan.unplanned["fluxcal"]
    assert "--with" in plan.unplanned["fluxcal"]
    files = {"STD_CATALOG": Path("/night/raw/refcat.csv"), "TEMPLATES": Path("/night/templates")}
    plan = planned(night(objects=3), files=files)
    (job,) = [job for job in plan.jobs if job.recipe.name == "fluxcal"]
    assert set(job.user) >= set(files)
    assert {member.catg for member in job.members} == {"REDUCED"}
    assert len(job.members) == 3
    (mean,) = [job for job in plan.jobs if job.recipe.name == "coadd"]
    assert {member.catg for member in mean.members} == {"CALIBRATED"}
    assert mean.depends == {job.name}


def test_only_one_mode_can_be_asked_for_and_keeps_its_bias(planned):
    plan = planned(night(modes=MODES), modes=["300_490"])
    expected = {"mbias": 1, "mdark": 1, "mflat": 1, "marc": 1, "object": 2, "coadd": 1}
    assert counted(plan) == expected
    with pytest.raises(SettingsError, match="300_490"):
        planned(night(modes=MODES), modes=["300_940"])


def test_only_one_recipe_takes_what_is_in_the_output(planned):
    chain = load_chain().recipes
    known = [product("MASTER_BIAS", 0, name="20260129_slow_master_bias.fits", recipe="mbias")]
    plan = planned(night(), chain=only(chain, ["mdark"]), known=known)
    assert counted(plan) == {"mdark": 1}
    assert best(plan, "mdark", "MASTER_BIAS") == ["20260129_slow_master_bias.fits"]


def test_each_plane_of_a_cube_is_a_frame(planned):
    (job,) = planned([frame("BIAS", 0, planes=5, exptime=0.0)]).jobs
    assert job.recipe.name == "mbias"
    assert planned([frame("BIAS", 0, planes=2, exptime=0.0)]).jobs == ()


def test_a_list_names_every_frame_and_every_calibration_once(planned):
    plan = planned(night())
    (job,) = [j for j in plan.jobs if j.recipe.name == "mdark"]
    text = job.sof([job.slots[0].ranked[0]], Path("/night/products/jobs"))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["DARK"] * 5 + ["MASTER_BIAS"]


def test_a_thousand_nights_take_time_in_proportion(planned):
    """Candidates are looked up, not searched: the work per night must not grow with the nights."""
    from kspecpipe.night import associate

    looks = []
    for nights in (10, 40):
        frames = [f for d in range(nights) for f in night(days=d, objects=1)]
        plan = planned(frames)
        kept = sum(len(slot.ranked) for job in plan.jobs for slot in job.slots)
        looks.append(kept / len(plan.jobs))
    assert looks[1] < 1.3 * looks[0]
    assert looks[1] <= 10 * associate.MOST_CANDIDATES
