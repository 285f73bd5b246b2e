"""Jobs on Beam: done once, errors as they are, this machine or another runner by options."""

import pytest

from data_pipelines.building import runner

pytest.importorskip("apache_beam", reason="the extra `media` is not installed")


def touch(path, text):
    """A job: leaves a file; "broken" is the text of one that fails."""
    if text == "broken":
        raise ValueError(f"{path.name} is broken")
    path.write_text(text)


def stands(path, _):
    return path.exists()


def run(folder, texts, **where):
    jobs = [(folder / f"{i}.txt", text) for i, text in enumerate(texts)]
    runner.run("jobs", touch, jobs, stands, folder / "workers.log", **where)
    return [path.read_text() for path, _ in jobs]


def test_finished_jobs_are_not_repeated(tmp_path, capsys):
    assert run(tmp_path, ["a", "b"]) == ["a", "b"]
    assert "jobs 2/2" in capsys.readouterr().out
    assert run(tmp_path, ["other", "other", "c"]) == ["a", "b", "c"]
    assert "jobs: 2 of 3 stand already" in capsys.readouterr().out
    run(tmp_path, ["a", "b", "c"])
    assert capsys.readouterr().out == "jobs: 3 of 3 stand already\n"


def test_what_a_job_raises_is_told(tmp_path):
    with pytest.raises(ValueError, match="1.txt is broken"):
        run(tmp_path, ["a", "broken"])


def test_a_portable_runner_is_chosen_by_options(tmp_path):
    from apache_beam.runners.portability import local_job_service

    service = local_job_service.LocalJobServicer(str(tmp_path / "staged"))
    port = service.start_grpc_server()
    try:
        options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"]
        texts = [str(i) for i in range(5)]
        assert run(tmp_path, texts, options=[*options, "--environment_type=LOOPBACK"]) == texts
    finally:
        service.stop()


def test_options_that_beam_refuses_are_one_line(tmp_path):
    with pytest.raises(runner.WorkerError, match="Beam refuses --runner=NoSuchRunner") as error:
        run(tmp_path, ["a"], options=["--runner=NoSuchRunner"])
    assert "\n" not in str(error.value)
