"""`kspec check SOF`: input frames, as the recipe would see them."""


def test_good_frames_are_counted(kspec, camera):
    sof = camera.sof_of(camera.biases(5))
    result = kspec("check", sof, "--recipe", "mbias", "--instrument", camera.instrument)
    assert result.code == 0
    assert "OK: 5 BIAS of TINY" in result.out
    assert not camera.output.exists()


def test_warnings_are_in_the_json_object(kspec, camera):
    sof = camera.sof_of(camera.biases(3))
    words = ["--recipe", "mbias", "--instrument", camera.instrument, "--json"]
    found = kspec("check", sof, *words).object
    assert found["recipe"] == "mbias"
    assert found["warnings"] == ["3 BIAS frames; 10 are recommended"]


def test_all_problems_are_reported_together_with_the_code_of_a_run(kspec, camera):
    good = [path.name for path in camera.biases(2)]
    dark = camera.dark().name
    sof = camera.sof(*[f"{name} BIAS" for name in good], f"{dark} BIAS", "gone.fits BIAS")
    words = [sof, "--recipe", "mbias", "--instrument", camera.instrument]
    result = kspec("check", *words)
    assert result.code == 3
    assert "in.sof, line 3" in result.err
    assert "in.sof, line 4" in result.err
    found = kspec("check", *words, "--json").object
    assert found["exit_code"] == 3
    assert len(found["errors"]) >= 2


def test_missing_calibration_exits_with_five(kspec, camera):
    sof = camera.sof_of([camera.dark()], "DARK")
    result = kspec("check", sof, "--recipe", "mdark", "--instrument", camera.instrument)
    assert result.code == 5
    assert "no MASTER_BIAS" in result.err


def test_text_files_are_read_too(kspec, camera):
    sof = camera.sof_of(camera.biases(3))
    assert kspec("check", sof, "--recipe", "mbias", "--instrument", camera.instrument).code == 0
    bad = camera.sof_with_bias([camera.dark()])
    camera.master_bias().write_bytes(b"")
    result = kspec("check", bad, "--recipe", "mdark", "--instrument", camera.instrument)
    assert result.code == 3
    assert "the file is empty" in result.err


def test_words_that_do_not_belong_together_are_refused(kspec):
    assert "--recipe RECIPE" in kspec("check", "in.sof").err
    assert "or --instrument FILE" in kspec("check").err
    assert "or --instrument FILE" in kspec("check", "--recipe", "mbias").err
    assert "did you mean 'mbias'?" in kspec("check", "in.sof", "--recipe", "mbais").err
