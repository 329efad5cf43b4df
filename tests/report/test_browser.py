"""The pages as a reader uses them: by clicking, on a large screen and on a phone."""

import json
from importlib.resources import files

import pytest

SIZES = {"wide": (1400, 900, False), "phone": (390, 844, True)}


@pytest.fixture
def page(browser, pages):
    """Return a function that opens a page of the report."""

    def show(name="2026-01-29.html", size="wide", *, dark=False):
        width, height, mobile = SIZES[size]
        browser.view(width, height, dark=dark, mobile=mobile)
        browser.open((pages / name).as_uri())
        return browser

    return show


def shown(browser):
    runs = "[...document.querySelectorAll('article')].filter(a => !a.hidden)"
    return browser.run(f"{runs}.map(a => a.dataset.recipe)")


def choose(browser, field, value):
    browser.run(
        f"(() => {{ const f = document.getElementById('f-{field}'); f.value = {json.dumps(value)};"
        "f.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_a_page_asks_for_nothing_and_makes_no_error(page):
    browser = page()
    for event in browser.events:
        method, about = event.get("method"), json.dumps(event)
        assert method not in ("Runtime.exceptionThrown", "Log.entryAdded"), about
        if method == "Network.requestWillBeSent":
            assert event["params"]["request"]["url"].startswith(("file:", "data:")), about


def test_typing_filters_runs_and_lights(page):
    browser = page()
    assert shown(browser) == ["mdark", "mflat", "object", "lflat"]
    browser.click("#f-text")
    browser.type("THROUGHPUT")
    browser.wait("document.getElementById('f-count').textContent === '1 of 4 runs'")
    assert shown(browser) == ["mflat"]
    rows = "[...document.querySelectorAll('tr[data-run]')].filter(r => !r.hidden).length"
    assert browser.run(rows) == 1


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("recipe", "mdark", ["mdark"]),
        ("flag", "fail", ["mflat", "object"]),
        ("flag", "ok", ["lflat"]),
        ("mode", "blue", ["mdark", "mflat", "object"]),
    ],
)
def test_choosing_filters_runs(page, field, value, expected):
    browser = page()
    choose(browser, field, value)
    assert shown(browser) == expected
    choose(browser, field, "")
    assert len(shown(browser)) == 4


def test_runs_can_be_ordered(page):
    browser = page()
    choose(browser, "sort", "recipe")
    assert shown(browser) == ["lflat", "mdark", "mflat", "object"]
    choose(browser, "sort", "seconds")
    assert shown(browser)[0] == "mdark"
    choose(browser, "sort", "worst")
    assert shown(browser) == ["mdark", "mflat", "object", "lflat"]


def test_tables_are_sorted_by_a_click_on_their_heading(page):
    browser = page("index.html")
    first = "document.querySelector('tbody tr th').textContent.trim()"
    assert browser.run(first) == "2026-01-30"
    browser.click("thead th button")
    assert browser.run(first) == "2026-01-28"
    assert browser.run("document.querySelector('thead th').ariaSort") == "ascending"
    browser.click("thead th button")
    assert browser.run(first) == "2026-01-30"


def test_a_click_on_a_light_opens_its_run_even_when_it_is_filtered_out(page):
    browser = page()
    link = "tr[data-run] a[href='#run-7']"  # lflat, the only good one
    run = "document.getElementById('run-7')"
    assert not browser.run(f"{run}.querySelector('details').open")
    browser.click(link)
    browser.wait(f"{run}.querySelector('details').open")
    browser.wait(f"Math.abs({run}.getBoundingClientRect().top) < innerHeight")
    choose(browser, "flag", "fail")
    browser.run("location.hash = ''")
    browser.run("location.hash = '#run-7'")
    browser.wait(f"!{run}.hidden")


def test_bad_runs_are_open_and_good_ones_closed(page):
    browser = page()
    state = "[...document.querySelectorAll('article > details')].map(d => d.open)"
    assert browser.run(state) == [True, True, True, False]


def test_everything_can_be_read_without_javascript(page, browser):
    browser.javascript(on=False)
    try:
        browser = page()
        assert browser.run("document.getElementById('filters').hidden")
        text = browser.run("document.body.innerText")
        for words in ("What is missing", "THROUGHPUT", "no RESPONSE", "calibration missing"):
            assert words in text
        assert "lflat" in text
    finally:
        browser.javascript(on=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["2026-01-29.html", "index.html"])
def test_no_page_is_wider_than_the_screen(page, size, name):
    browser = page(name, size)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= SIZES[size][0]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["2026-01-29.html", "index.html"])
def test_axe_finds_no_barrier(page, size, name, dark):
    browser = page(name, size, dark=dark)
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != dark
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    browser.run(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    browser.run("window.all = null; axe.run().then(r => { window.all = r; })")
    browser.wait("window.all !== null")
    assert browser.run("all.passes.length") > 15  # it has looked
    about = "v.id, v.nodes.length, v.nodes[0].html, v.nodes[0].failureSummary"
    assert browser.run(f"all.violations.map(v => [{about}])") == []


def test_keyboard_reaches_the_content_first(page):
    browser = page()
    for kind in ("keyDown", "keyUp"):
        browser.send(
            "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
        )
    assert browser.run("document.activeElement.className") == "skip"
