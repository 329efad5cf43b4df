"""The pages as text: complete, self-contained, and safe whatever the names are."""

import re
from html.parser import HTMLParser

import pytest
from astropy.io import fits
from astropy.table import Table

from kspecpipe.cli import main
from kspecpipe.qc import Flag
from kspecpipe.report.collect import collect

VOID = {"meta", "link", "input", "img", "br"}


class Outline(HTMLParser):
    """Checks that elements are closed in their order, and gathers what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.headings, self.text = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src") if name in found]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def text(pages):
    return (pages / "2026-01-29.html").read_text()


@pytest.fixture(scope="module")
def night(nights):
    return collect(nights / "qc.sqlite", "2026-01-29")


@pytest.mark.parametrize("name", ["2026-01-28.html", "2026-01-29.html", "index.html"])
def test_a_page_needs_nothing_from_outside(pages, name):
    outline = Outline((pages / name).read_text())
    for link in outline.links:
        assert link.startswith(("#", "data:")) or (pages / link.partition("#")[0]).is_file(), link


@pytest.mark.parametrize("name", ["2026-01-28.html", "2026-01-29.html", "index.html"])
def test_a_page_is_well_formed(pages, name):
    outline = Outline((pages / name).read_text())
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    steps = zip(outline.headings, outline.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps)
    for link in outline.links:
        page, _, anchor = link.partition("#")
        if anchor and not page:
            assert anchor in outline.ids, link


def test_hostile_names_are_text(text):
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)" in text
    assert text.count("<script>") == 1  # our own


def test_what_is_missing_is_said_first(night, text):
    words = "\n".join(night.missing)
    assert "object blue: calibration missing: no RESPONSE" in words
    assert "mdark_29.fits: is in the history, but its file is gone" in words
    assert "mflat_29: was made with bias_2.fits, which has been rejected since" in words
    assert "TINY marc blue: nothing tonight; there was on 2026-01-28" in words
    assert text.index('id="missing"') < text.index('id="lights"') < text.index('id="runs"')


def test_runs_come_the_worst_first_and_nothing_unusable_is_green(night):
    flags = {run.row["recipe"]: run.flag for run in night.runs}
    assert flags == {
        "mdark": Flag.UNMEASURED,
        "mflat": Flag.FAIL,  # its bias was rejected
        "object": Flag.FAIL,  # no product
        "lflat": Flag.OK,
    }
    order = list(Flag)
    ranks = [order.index(run.flag) for run in night.runs]
    assert ranks == sorted(ranks, reverse=True)
    assert night.counts == {Flag.UNMEASURED: 1, Flag.FAIL: 2, Flag.OK: 1}


def test_a_rejected_product_is_never_green(nights):
    before = collect(nights / "qc.sqlite", "2026-01-28")
    assert {run.row["recipe"]: run.flag for run in before.runs}["mbias"] == Flag.FAIL


def test_changes_since_the_night_before_are_listed(night):
    changes = {(c.recipe, c.metric): c for c in night.changes}
    level = changes["mflat", "LEVEL"]
    assert (level.before, level.now) == ((Flag.OK, 10.0), (Flag.WARN, 70.0))
    assert set(changes) == {("mflat", "LEVEL"), ("mflat", "THROUGHPUT")}


def test_a_metric_that_changed_its_unit_is_a_change(nights):
    night = collect(nights / "qc.sqlite", "2026-01-30")
    assert [c.unit for c in night.changes] == []  # nothing to compare with on the 29th
    assert "nothing tonight; there was on 2026-01-29" in "\n".join(night.missing)


def test_levels_of_the_calibrations_are_summed_up(night):
    assert {word: len(runs) for word, runs in night.levels.items()} == {
        "within 3 days": 1,
        "not associated": 3,
    }


def test_metrics_stand_with_limits_strips_and_reasons(text):
    assert "0 .. 50" in text
    assert 'aria-label="THROUGHPUT: 30 warn (fibre 121, 122,' in text
    assert "120 ok" in text
    assert text.count('class="bullet"') >= 5
    assert "warn: &lt;script" in text


def test_inputs_are_linked_to_the_night_that_made_them(text, pages):
    anchor = f'href="2026-01-28.html#p-{"b" * 16}"'
    assert anchor in text
    assert f'id="p-{"b" * 16}"' in (pages / "2026-01-28.html").read_text()


def test_pictures_are_embedded_and_their_absence_is_said(text):
    assert text.count("data:image/webp;base64,") == 1
    assert "There is no plot of it." in text
    assert "The file is gone from" in text


def test_the_index_links_nights_that_have_a_page(pages):
    index = (pages / "index.html").read_text()
    assert 'href="2026-01-29.html"' in index
    assert 'href="2026-01-30.html"' not in index
    assert "2026-01-30" in index


def test_settings_and_log_of_a_real_product_are_shown(camera, tmp_path, monkeypatch):
    words = ("--plots", "file", "--set", "mbias.stacked_clipping_sigma=4.5")
    sof = camera.sof_of(camera.biases(3))
    options = ["--instrument", str(camera.instrument), "-o", str(camera.output), "-q"]
    assert main(["mbias", str(sof), *words, *options]) == 0
    (camera.output / "20260129_slow_master_bias.png").unlink()  # it is drawn again
    monkeypatch.chdir(tmp_path)
    assert main(["qc", "report", "pages", "--qc-store", str(camera.output)]) == 0
    text = (tmp_path / "pages" / "2026-01-29.html").read_text()
    assert "Settings that differ from the default (1)" in text
    assert "<td>4.5</td><td>--set mbias.stacked_clipping_sigma=4.5</td>" in text
    assert "read noise" in text
    assert "data:image/webp;base64," in text


def test_a_settings_table_of_another_form_is_left_out(camera, tmp_path):
    camera.run("mbias", camera.sof_of(camera.biases(3)))
    (path,) = camera.output.glob("*.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["SETTINGS"] = fits.BinTableHDU(Table({"name": ["a"]}), name="SETTINGS")
    assert main(["qc", "report", str(tmp_path / "out"), "--qc-store", str(camera.output)]) == 0
    text = (tmp_path / "out" / "2026-01-29.html").read_text()
    assert "Settings that differ" not in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--night", "2026-01-31"), 2, "knows no night '2026-01-31'"),
        (("--night", "tonight"), 2, "knows no night 'tonight'"),
        (("--night", "2026-01-29", "--all"), 2, "not allowed with"),
    ],
)
def test_usage_errors_are_told(nights, tmp_path, capsys, words, code, message):
    out = tmp_path / "out"
    assert main(["qc", "report", str(out), "--qc-store", str(nights), *words]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(nights, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["qc", "report", str(tmp_path / "out"), "--qc-store", str(nights)]) == 2
    assert "is a file; a folder is expected" in capsys.readouterr().err


def test_all_nights_can_be_asked_for(nights, tmp_path):
    assert main(["qc", "report", str(tmp_path), "--qc-store", str(nights), "--all"]) == 0
    assert len(list(tmp_path.glob("2026-*.html"))) == 3
