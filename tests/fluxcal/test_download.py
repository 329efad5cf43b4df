"""Fetching templates from a server on this machine."""

import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from kspecpipe.errors import RecipeError
from kspecpipe.fluxcal.download import FetchOptions, Subgrid, download_templates, planned_files
from kspecpipe.fluxcal.templates import TemplateLibrary, check_library, read_index
from kspecpipe.simulate.standards import LibraryPlan, write_template_library

GRID = Subgrid(teff=(6000.0, 6500.0), logg=(4.0,), feh=(-0.25, 0.0), resolution=500)


class Archive(BaseHTTPRequestHandler):
    """Serves a folder; some files fail a few times, or always, or break off."""

    def __init__(self, *args, state, **kwargs):
        self.state = state
        super().__init__(*args, **kwargs)

    def do_GET(self):  # noqa: N802
        state, name = self.state, self.path.lstrip("/")
        with state["lock"]:
            state["asked"].append(name)
            failures = state["failures"].get(Path(name).name, 0)
            state["failures"][Path(name).name] = failures - 1
        if state["barrier"] and name.startswith("r500/"):
            state["barrier"].wait(timeout=20)
        path = state["folder"] / name
        if not path.is_file():
            self.send_error(404)
        elif failures > 0:
            self.send_error(503)
        else:
            body = path.read_bytes()
            self.send_response(200)
            if not state["silent"]:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:100] if Path(name).name in state["broken"] else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def archive(tmp_path):
    plan = LibraryPlan(GRID.teff, GRID.logg, GRID.feh, GRID.resolution)
    write_template_library(tmp_path / "archive", plan)
    state = {
        "folder": tmp_path / "archive",
        "asked": [],
        "failures": {},
        "broken": set(),
        "silent": False,
        "barrier": None,
        "lock": threading.Lock(),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Archive, state=state))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state["url"] = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(archive, folder, **changes):
    return download_templates(
        folder, GRID, FetchOptions(archive=archive["url"], pause=0.01, **changes)
    )


def test_the_plans_subgrid_has_520_models_and_one_file_of_wavelengths():
    names = planned_files(Subgrid())
    assert len(names) == 521
    assert len(set(names)) == 521
    assert names[0] == "bosz2024_wave_r10000.txt"
    assert (
        "r10000/m+0.00/bosz2024_mp_t6000_g+4.0_m+0.00_a+0.00_c+0.00_v1_r10000_resam.txt.gz"
    ) in names
    assert sum("_ap_" in name for name in names) == 520 * 3 // 13


def test_a_fetched_library_is_complete_and_can_be_used(archive, tmp_path):
    summary = fetch(archive, tmp_path / "lib")
    assert summary.text() == "5 ok, 0 skipped, 0 not found, 0 error"
    assert check_library(tmp_path / "lib").complete
    assert len(TemplateLibrary(tmp_path / "lib").grid()) == 4


def test_eight_models_come_at_a_time_with_three_tries_two_seconds_apart(archive, tmp_path):
    """No answer comes before eight questions are there."""
    archive["barrier"] = threading.Barrier(8)
    eight = Subgrid(tuple(range(5000, 5800, 100)), (4.0,), (0.0,), resolution=500)
    summary = download_templates(tmp_path / "lib", eight, FetchOptions(archive=archive["url"]))
    assert summary.text() == "1 ok, 0 skipped, 8 not found, 0 error"
    assert (FetchOptions().workers, FetchOptions().tries, FetchOptions().pause) == (8, 3, 2.0)


def test_what_is_there_is_skipped_unless_forced(archive, tmp_path):
    fetch(archive, tmp_path / "lib")
    asked = len(archive["asked"])
    assert fetch(archive, tmp_path / "lib").count("skipped") == 5
    assert len(archive["asked"]) == asked
    assert fetch(archive, tmp_path / "lib", force=True).count("ok") == 5


def test_a_dry_run_asks_for_nothing_and_writes_nothing(archive, tmp_path):
    summary = fetch(archive, tmp_path / "lib", dry_run=True)
    assert summary.count("planned") == 5
    assert archive["asked"] == []
    assert not (tmp_path / "lib").exists()


def test_a_model_that_does_not_exist_is_no_error_and_leaves_the_index(archive, tmp_path):
    lost = sorted((archive["folder"] / "r500").rglob("*.gz"))[0]
    lost.unlink()
    summary = fetch(archive, tmp_path / "lib")
    assert (summary.count("ok"), summary.count("not found"), summary.count("error")) == (4, 1, 0)
    assert len(read_index(tmp_path / "lib", 500)) == 3
    assert check_library(tmp_path / "lib").complete


def test_two_failures_are_survived_and_three_are_an_error_that_the_library_knows(archive, tmp_path):
    files = sorted((archive["folder"] / "r500").rglob("*.gz"))
    archive["failures"] = {files[0].name: 2, files[1].name: 3}
    summary = fetch(archive, tmp_path / "lib")
    assert (summary.count("ok"), summary.count("error")) == (4, 1)
    assert "503" in next(iter(summary.problems.values()))
    assert sum(files[0].name in name for name in archive["asked"]) == 3
    with pytest.raises(RecipeError, match="1 are missing"):
        TemplateLibrary(tmp_path / "lib")
    assert fetch(archive, tmp_path / "lib").count("ok") == 1
    assert len(TemplateLibrary(tmp_path / "lib")) == 4


def test_a_transfer_that_breaks_off_leaves_no_file(archive, tmp_path):
    name = sorted((archive["folder"] / "r500").rglob("*.gz"))[0].name
    archive["broken"] = {name}
    assert fetch(archive, tmp_path / "lib", tries=1).count("error") == 1
    assert not list((tmp_path / "lib").rglob(name))
    assert not list((tmp_path / "lib").rglob(".*"))


def test_a_transfer_of_unknown_length_that_breaks_off_leaves_no_file(archive, tmp_path):
    name = sorted((archive["folder"] / "r500").rglob("*.gz"))[0].name
    archive["broken"], archive["silent"] = {name}, True
    summary = fetch(archive, tmp_path / "lib", tries=1)
    assert (summary.count("ok"), summary.count("error")) == (4, 1)
    assert "not the whole file" in next(iter(summary.problems.values()))
    assert not list((tmp_path / "lib").rglob(name))


def test_an_answer_that_is_no_http_is_an_error_in_words(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(Archive, "protocol_version", "no protocol")
    summary = fetch(archive, tmp_path / "lib", tries=1)
    assert summary.text() == "0 ok, 0 skipped, 0 not found, 1 error, 4 planned"
    assert "no protocol" in next(iter(summary.problems.values()))


def test_what_a_killed_run_left_is_swept_but_not_what_still_grows(archive, tmp_path):
    fetch(archive, tmp_path / "lib")
    old, young = (tmp_path / "lib" / "r500" / f".{name}.part" for name in ("old", "young"))
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetch(archive, tmp_path / "lib")
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize("changes", [{"teff": (-6000.0,)}, {"feh": (np.nan,)}, {"resolution": 0}])
def test_a_subgrid_that_no_library_has_is_refused(changes):
    with pytest.raises(ValueError, match="must be numbers"):
        Subgrid(**changes)


def test_wavelengths_are_found_where_the_archive_has_put_them(archive, tmp_path):
    name = "bosz2024_wave_r500.txt"
    (archive["folder"] / "wavelength_grids").mkdir()
    (archive["folder"] / name).rename(archive["folder"] / "wavelength_grids" / name)
    assert fetch(archive, tmp_path / "lib").count("ok") == 5
    assert (tmp_path / "lib" / name).exists()


def test_a_second_subgrid_keeps_the_first_in_the_index(archive, tmp_path):
    fetch(archive, tmp_path / "lib")
    download_templates(
        tmp_path / "lib",
        Subgrid((6000.0,), (4.0,), (0.0,), resolution=500),
        FetchOptions(archive=archive["url"], pause=0.01),
    )
    assert len(read_index(tmp_path / "lib", 500)) == 4
