from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from pipeline import tracking
from pipeline.runs.reading import CHECKSUMS
from pipeline.runs.records import TIMING, Provenance, Timing, write_rows
from pipeline.runs.spec import NetworkSpec
from pipeline.utils.errors import UserError
from tests.unit.tracking.run_folders import make_segment, make_spec, write_run


def steps(client: MlflowClient, run_id: str, metric: str = "test/error") -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, metric)]


def finished(uri: str, client: MlflowClient, folder: Path) -> Run:
    run_id = tracking.open_run(uri, folder, profile="digits")
    assert tracking.close_run(uri, run_id, folder, "FINISHED") == run_id
    return client.get_run(run_id)


def test_a_run_shows_its_full_configuration_as_parameters(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    params = finished(uri, client, folder).data.params
    assert params["protocol.milestones"] == "[24, 36]"
    assert params["protocol.nesterov"] == "true"
    config = json.loads((folder / "config.json").read_text())
    renamed = {"network.name": "network", "network.options.learning": "learning", "data.noise": "noise"}
    assert {renamed.get(key, key) for key in _keys(config)} <= set(params)


def _keys(value: dict[str, object], prefix: str = "") -> list[str]:
    return [
        key
        for name, item in value.items()
        for key in (_keys(item, f"{prefix}{name}.") if isinstance(item, dict) else [f"{prefix}{name}"])
    ]


def test_options_that_are_left_at_their_defaults_are_parameters_too(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    attention = replace(make_spec(), network=NetworkSpec("cifar_attention56", 10, {"activation": "spatial"}))
    resnet = replace(make_spec("resnet164", noise=30), network=NetworkSpec("cifar_preresnet164", 10))
    runs = [finished(uri, client, write_run(tmp_path, spec)).data.params for spec in (attention, resnet)]
    expected = {"network": "cifar_attention56", "noise": "0", "learning": "arl", "activation": "spatial"}
    expected |= {"mask": "encoder_decoder", "p": "1", "t": "2", "r": "1"}
    assert {key: runs[0].get(key) for key in expected} == expected
    assert (runs[1]["network"], runs[1]["noise"]) == ("cifar_preresnet164", "30")
    assert not {"learning", "activation", "mask"} & runs[1].keys()


def test_a_run_can_be_walked_back_by_its_tags(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    spec = make_spec("attention92", seed=3)
    tags = finished(uri, client, write_run(tmp_path, spec)).data.tags
    expected = {
        "identity": spec.identity,
        "experiment": "attention92",
        "seed": "3",
        "profile": "digits",
        "data.checksum": spec.data.checksum,
        "paper.tables": "table3",
        "paper.cells": "table3/attention92/arl",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.git.dirty": "False",
        "mlflow.source.name": "python -m pipeline launch",
        "version.torch": "2.11.0",
        "hardware": "cpu: Example",
    }
    assert {key: tags.get(key) for key in expected} == expected


@pytest.mark.parametrize(("inside", "stage"), [(None, "train@digits-attention56-0"), ("launch", "launch")])
def test_the_dvc_stage_is_a_tag(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str | None, stage: str
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if inside:
        monkeypatch.setenv("DVC_STAGE", inside)
    assert finished(uri, client, write_run(tmp_path, make_spec())).data.tags["DVC_STAGE"] == stage


def test_before_its_first_segment_a_run_has_the_commit_of_this_checkout(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = tracking.open_run(uri, write_run(tmp_path, make_spec(), 0, "running"), profile="digits")
    tags = client.get_run(run_id).data.tags
    assert len(tags.get("mlflow.source.git.commit", "")) in (0, 40)  # none where this is no git checkout
    assert tags["mlflow.source.name"].startswith("python -m pipeline")


def test_data_are_inputs_with_digests_and_noisy_labels_have_their_own(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    clean, noisy = (
        [
            (given.dataset.name, given.dataset.digest, given.tags[0].value)
            for given in finished(uri, client, write_run(tmp_path, spec)).inputs.dataset_inputs
        ]
        for spec in (make_spec(), make_spec("attention92-noise30", noise=30))
    )
    assert sorted(clean) == [("digits", "ab" * 18, "train"), ("digits-test", "ab" * 18, "test")]
    assert sorted(noisy) == [("digits-noise30", "cd" * 18, "train"), ("digits-test", "ab" * 18, "test")]


def test_the_description_links_to_each_table_and_cell(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    run = finished(uri, client, write_run(tmp_path, make_spec()))
    (tmp_path / "reports").mkdir()
    report = tracking.log_report(uri, "digits", tmp_path / "reports")
    note = run.data.tags["mlflow.note.content"]
    for number, cell in {
        1: "table1/mixed/error",
        3: "table3/attention56/arl",
        4: "table4/encoder_decoder/error",
    }.items():
        table = tracking.open_parent(uri, "table", f"table{number}", "digits")
        assert f"[Table {number}](#/experiments/{run.info.experiment_id}/runs/{table})" in note
        row, column = cell.split("/")[1:]
        page = f"#/experiments/{run.info.experiment_id}/runs/{report}/artifacts/report.html"
        assert f"| [{row}, {column}]({page}#{cell}) | `python -m pipeline trace {cell}` |" in note


def test_a_run_is_nested_under_its_first_table(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    runs = [finished(uri, client, write_run(tmp_path, make_spec(seed=seed))) for seed in (0, 1)]
    table = tracking.open_parent(uri, "table", "table1", "digits")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {table}
    parent = client.get_run(table)
    assert (parent.info.run_name, parent.info.status) == ("Table 1", "FINISHED")
    assert "Activation of the mask" in parent.data.tags["mlflow.note.content"]
    assert parent.info.experiment_id == runs[0].info.experiment_id


def test_trials_are_nested_under_their_search(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    search = tracking.open_parent(uri, "search", "optimiser", "digits")
    trial = tracking.open_run(uri, write_run(tmp_path, make_spec()), profile="digits", parent=search)
    assert client.get_run(trial).data.tags["mlflow.parentRunId"] == search
    assert client.get_run(search).info.status == "RUNNING"
    tracking.close_parent(uri, search, "FINISHED")
    assert client.get_run(search).info.status == "FINISHED"
    assert tracking.open_parent(uri, "search", "optimiser", "digits") == search


def test_a_trial_belongs_to_its_search_alone_and_fills_no_cell_of_the_paper(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, make_spec())
    searches = [tracking.open_parent(uri, "search", name, "digits") for name in ("optimiser", "architecture")]
    trials = [tracking.open_run(uri, folder, profile="digits", parent=search) for search in searches]
    assert len({*trials, tracking.open_run(uri, folder, profile="digits")}) == 3
    assert tracking.close_run(uri, None, folder, "KILLED", parent=searches[1], tags={"pruned": "true"}) == trials[1]
    assert tracking.sync(uri, [folder], parent=searches[0]).created == 0
    tags = client.get_run(trials[1]).data.tags
    assert tags["pruned"] == "true"
    assert "paper.cells" not in tags
    assert "trace" not in tags["mlflow.note.content"]


def test_a_finished_run_has_its_curves_numbers_and_files(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    (folder / "weights.safetensors").write_bytes(b"weights")
    run = finished(uri, client, folder)
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time - run.info.start_time) == (1772359200000, 30_000)
    points = client.get_metric_history(run.info.run_id, "test/error")
    assert [(point.step, point.value, point.timestamp - run.info.start_time) for point in points] == [
        (1, 4.5, 10_000),
        (2, 2.25, 20_000),
        (3, 1.5, 30_000),
    ]
    assert set(run.data.metrics) == {
        *("train/loss", "train/error", "train/learning_rate", "train/seconds", "train/images_per_second"),
        *("test/loss", "test/error"),
    }, "curves alone are metrics, and the first charts"
    assert all(steps(client, run.info.run_id, metric) == [1, 2, 3] for metric in run.data.metrics)
    assert run.data.params["parameters"] == "1030362"
    assert run.data.params["protocol.iterations"] == "60"
    assert run.data.tags["best_test_error"] == "1.5"
    assert run.data.tags["response.relative"] == "[1.0, 0.5, 0.25]"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"metrics.json", "responses.json", "masks.png", "weights.safetensors"} <= files
    with Image.open(client.download_artifacts(run.info.run_id, "masks.png", str(tmp_path))) as picture:
        assert picture.size == (4 + 3 * 68, 18 + 8 * 68)  # a column each for picture, s1m1 and s2m1; a row a picture


def test_a_point_has_the_time_of_its_evaluation_however_late_it_is_logged(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "running")
    write_rows(folder / TIMING, Timing, [Timing(1, 20, 29.5, 43.4), Timing(2, 40, 30.25, 1706.7)])
    segments = (make_segment(0, 0), replace(make_segment(40, 60), started="2026-03-01T11:00:00+00:00"))
    Provenance("running", "digits", segments[:1]).write(folder)
    run_id = tracking.open_run(uri, folder, profile="digits")
    tracking.sync(uri, [folder])
    write_run(tmp_path, make_spec())
    rows = [Timing(1, 20, 29.5, 43.4), Timing(2, 40, 30.25, 1706.7), Timing(3, 60, 32.0, 128.0)]
    write_rows(folder / TIMING, Timing, rows)
    ended = (replace(segments[0], to_iteration=40, seconds=30.25), segments[1])
    Provenance("finished", "digits", ended).write(folder)
    tracking.close_run(uri, run_id, folder, "FINISHED")
    start = 1772359200000
    points = client.get_metric_history(run_id, "test/error")
    assert [point.timestamp - start for point in points] == [29_500, 30_250, 3_601_750]


def test_a_point_waits_for_its_time_while_the_run_goes_on(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "running")
    write_rows(folder / TIMING, Timing, [Timing(1, 20, 10.0, 128.0)])  # history.csv is written first
    run_id = tracking.open_run(uri, folder, profile="digits")
    tracking.sync(uri, [folder])
    assert [point.step for point in client.get_metric_history(run_id, "test/error")] == [1]
    write_run(tmp_path, make_spec())
    tracking.close_run(uri, run_id, folder, "FINISHED")
    assert [point.step for point in client.get_metric_history(run_id, "test/error")] == [1, 2, 3]


def test_the_points_of_an_ended_run_are_all_logged(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    (folder / TIMING).unlink()
    run = finished(uri, client, folder)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "test/error")] == [1, 2, 3]


def test_artifacts_lie_beside_the_database(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    run = finished(uri, client, write_run(tmp_path / "runs", make_spec()))
    assert run.info.artifact_uri.startswith((tmp_path / "mlartifacts").as_uri())
    file = tmp_path / "mlartifacts" / "digits" / run.info.run_id / "artifacts" / "metrics.json"
    assert file.is_file()
    assert not file.is_symlink()  # a copy: the run folder may be cleaned away


def test_a_resumed_run_continues_its_own_curve_without_duplicates(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "paused")
    first = tracking.open_run(uri, folder, profile="digits")
    tracking.close_run(uri, first, folder, "KILLED")
    assert client.get_run(first).info.status == "KILLED"
    second = tracking.open_run(uri, folder, profile="digits")
    assert client.get_run(second).info.status == "RUNNING"
    write_run(tmp_path, make_spec())
    tracking.close_run(uri, second, folder, "FINISHED")
    assert second == first
    for metric in ("test/error", "train/learning_rate", "train/images_per_second"):
        assert steps(client, first, metric) == [1, 2, 3]


def test_points_of_a_training_that_was_done_again_elsewhere_do_not_stay(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, make_spec(), 2, "running")
    first = tracking.open_run(uri, folder, profile="digits")
    tracking.sync(uri, [folder])
    write_run(tmp_path, make_spec())
    history = folder / "history.csv"
    header, one, two, three = history.read_text().splitlines()
    again = two.replace("0.0625", "0.0635")  # the loss after two epochs, from another kind of processor
    assert again != two
    history.write_text("\n".join([header, one, again, three, ""]))
    (folder / CHECKSUMS).unlink()
    second = tracking.close_run(uri, first, folder, "FINISHED")
    assert second != first
    assert [point.value for point in client.get_metric_history(second, "test/loss")] == [0.125, 0.0635, 2.5 / 60]
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert tracking.sync(uri, [folder]) == tracking.SyncResult(runs=1, created=0, points=0, failed=())


def test_another_seed_is_another_run(uri: str, tmp_path: Path) -> None:
    ids = {tracking.open_run(uri, write_run(tmp_path, make_spec(seed=seed)), profile="digits") for seed in (0, 1, 0)}
    assert len(ids) == 2


def test_a_run_whose_opening_was_cut_short_is_completed(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    spec = make_spec()
    experiment = client.create_experiment("residual-attention/digits")
    tags = {"kind": "run", "identity": spec.identity, "experiment": spec.experiment}
    begun = client.create_run(experiment, tags=tags).info.run_id
    assert tracking.open_run(uri, write_run(tmp_path, spec), profile="digits") == begun
    run = client.get_run(begun)
    assert run.data.params["seed"] == "0"
    assert run.inputs.dataset_inputs


def test_a_deleted_run_stays_deleted_and_a_new_one_is_made(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    old = tracking.open_run(uri, folder, profile="digits")
    client.delete_run(old)
    new = tracking.close_run(uri, old, folder, "FINISHED")
    assert new != old
    assert steps(client, new) == [1, 2, 3]


def test_a_run_begun_with_another_store_is_closed_in_this_one(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    run_id = tracking.close_run(uri, "0" * 32, write_run(tmp_path, make_spec()), "FAILED")
    assert client.get_run(run_id).info.status == "FAILED"


def test_nothing_is_written_into_the_run_folder(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    folder = write_run(tmp_path, make_spec())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    finished(uri, client, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_without_configuration_is_named(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        tracking.open_run(uri, tmp_path, profile="digits")


def test_report_and_figures_are_artifacts_of_one_report_run(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "digits"
    (report / "figures").mkdir(parents=True)
    (report / "report.html").write_text("first")
    (report / "figures" / "noise.png").write_bytes(b"png")
    first = tracking.log_report(uri, "digits", report)
    (report / "report.html").write_text("second")
    assert tracking.log_report(uri, "digits", report) == first
    assert Path(client.download_artifacts(first, "report.html", str(tmp_path))).read_text() == "second"
    assert [file.path for file in client.list_artifacts(first, "figures")] == ["figures/noise.png"]


def test_the_duration_of_a_run_is_that_of_its_training(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    """Neither the wait for a turn before it nor a pause in it counts."""
    folder = write_run(tmp_path, make_spec(), 0, "running")
    run_id = tracking.open_run(uri, folder, profile="digits")  # now, months after its segments say
    write_run(tmp_path, make_spec())
    later = replace(make_segment(40, 60), started="2026-03-02T10:00:00+00:00")
    Provenance("finished", "digits", (make_segment(0, 40), later)).write(folder)
    assert tracking.close_run(uri, run_id, folder, "FINISHED") == run_id
    info = client.get_run(run_id).info
    assert info.end_time - info.start_time == 30_000


def test_tables_and_searches_carry_the_lowest_error_of_their_finished_runs(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    def shown(parent: str | None) -> tuple[float | None, str | None]:
        data = client.get_run(parent).data
        return data.metrics.get("test/error"), data.tags.get("best.run")

    tables = {name: tracking.open_parent(uri, "table", name, "digits") for name in ("table1", "table3")}
    finished(uri, client, write_run(tmp_path, make_spec(seed=2)))
    assert shown(tables["table1"]) == (3.5, "attention56-s2")
    finished(uri, client, write_run(tmp_path, make_spec(seed=1)))
    paused = write_run(tmp_path, make_spec(), 3, "paused")
    tracking.close_run(uri, None, paused, "KILLED")
    assert shown(tables["table1"]) == shown(tables["table3"]) == (2.5, "attention56-s1")
    search = tracking.open_parent(uri, "search", "optimiser", "digits")
    for number in range(2):
        trial = write_run(tmp_path / "trials", make_spec("attention56-trial00" + str(number), seed=number))
        tracking.close_run(uri, None, trial, "FINISHED", parent=search)
    assert shown(search) == (1.5, "attention56-trial000-s0")


def test_the_default_columns_show_error_network_and_noise(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    run = finished(uri, client, write_run(tmp_path, make_spec()))
    tags = client.get_experiment(run.info.experiment_id).tags
    columns = json.loads(tags["mlflow.sharedViewState.errors"])["selectedColumns"]
    assert columns[:3] == ["metrics.`test/error`", "params.`network`", "params.`noise`"]
    assert f"(#/experiments/{run.info.experiment_id}/runs?viewStateShareKey=errors)" in tags["mlflow.note.content"]


def test_a_run_that_was_logged_under_other_metric_names_is_logged_anew(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, make_spec())
    old = tracking.open_run(uri, folder, profile="digits")
    client.log_metric(old, "test_error", 4.5, step=20)
    assert tracking.sync(uri, [folder]).created == 1
    assert client.get_run(old).info.lifecycle_stage == "deleted"
