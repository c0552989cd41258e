"""The part of the suite that trains, in the plugin's own Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from eagleray.contract import Framework, ModelStatus, Resume
from eagleray.testing.attempt import find_framework
from eagleray.testing.attempts import Outcome, Runner, code_folder
from eagleray.testing.conformance.answers import faults_in
from eagleray.testing.conformance.case import Case, differences
from eagleray.testing.conformance.trial import Trial, damaged_copies, files_of
from eagleray.testing.conformance.workers import WorkersConformance
from eagleray.testing.environment import python_of


class TrainingConformance(WorkersConformance):
    """What the adapter and the predictor do.

    Attributes:
        cases: what is tried; empty: every task of the framework with its first model, as it is.
        untried: tasks that no case is about, and why.
        timeout_s: for one attempt.
    """

    cases: ClassVar[tuple[Case, ...]] = ()
    untried: ClassVar[Mapping[str, str]] = {}
    timeout_s: ClassVar[float] = 300

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", cases_of(metafunc.cls), ids=_case_name, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def runner(cls, framework: Framework, tmp_path_factory: pytest.TempPathFactory) -> Runner:
        """How attempts are run; override it to name another Python or more code."""
        roots = dict.fromkeys(["eagleray", cls.plugin.partition(".")[0]])
        code = code_folder(tmp_path_factory.mktemp("code"), list(roots))
        return Runner(python_of(framework), code, cls.timeout_s)

    @pytest.fixture(scope="class")
    @classmethod
    def trial(cls, case: Case, framework: Framework, runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Trial:
        folder = tmp_path_factory.mktemp("trial")
        return Trial(cls.plugin, framework, runner, case.prepared(runner.python, runner.code, folder), folder)

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, trial: Trial) -> Outcome:
        """An uninterrupted run to the last epoch."""
        return trial.succeed("whole")

    @pytest.fixture(scope="class")
    @classmethod
    def cut(cls, trial: Trial, whole: Outcome) -> Outcome:
        """The same run, told to stop after the first batch of its second epoch."""
        return trial.succeed("cut", stop_after_steps=whole.steps[0][2] + 1)

    def test_c3_the_steps_are_called_in_order(self, whole: Outcome) -> None:
        """C3"""
        assert whole.calls == ("load_data", "load_model", "train", "validate")

    def test_c5_every_epoch_is_reported_once(self, trial: Trial, whole: Outcome) -> None:
        """C5"""
        assert [report.epoch for report in whole.reports] == list(range(1, trial.case.epochs + 1))

    def test_c5_progress_counts_the_batches_of_an_epoch(self, trial: Trial, whole: Outcome) -> None:
        """C5"""
        for epoch in range(1, trial.case.epochs + 1):
            steps = [(step, of) for number, step, of in whole.steps if number == epoch]
            assert [step for step, _ in steps] == sorted({step for step, _ in steps}), f"epoch {epoch}: {steps}"
            assert steps and steps[-1][0] == steps[-1][1], f"epoch {epoch} ends at step {steps[-1:]}"

    def test_c25_metrics_are_finite_and_the_best_one_is_among_them(self, trial: Trial, whole: Outcome) -> None:
        """C25"""
        best = trial.framework.best_metrics[trial.case.task].name
        everything = [*(report.metrics for report in whole.reports), whole.final or {}]
        assert all(best in metrics for metrics in everything)
        assert all(math.isfinite(value) for metrics in everything for value in metrics.values())

    def test_c9_a_checkpoint_holds_the_portable_file_and_is_left_alone(self, trial: Trial, whole: Outcome) -> None:
        """C9"""
        for report in whole.reports:
            assert report.checkpoint is not None
            names = {path.name for path in report.checkpoint.iterdir()}
            assert trial.framework.portable_file in names and "manifest.json" not in names
            assert (report.checkpoint / trial.framework.portable_file).stat().st_size > 0

    def test_c14_nothing_is_written_outside_the_work_folder(self, trial: Trial, whole: Outcome) -> None:
        """C14"""
        assert whole.writes == ()
        assert files_of(trial.dataset.path) == trial.dataset_before

    def test_c30_nobody_is_called(self, whole: Outcome) -> None:
        """C30"""
        assert whole.network == ()

    def test_c19_the_steps_need_no_main_thread_and_catch_no_signal(self, whole: Outcome) -> None:
        """C19"""
        assert whole.result["main_thread"] is False
        assert whole.result["signals"] == []

    def test_c31_no_process_and_no_thread_is_left(self, whole: Outcome, cut: Outcome) -> None:
        """C31"""
        assert (whole.left, cut.left) == ((), ())

    def test_c26_the_same_seed_gives_the_same_figures_and_another_others(self, trial: Trial, whole: Outcome) -> None:
        """C26"""
        again, other = trial.succeed("again"), trial.succeed("other", seed=1)
        assert trial.unlike(again, whole) == []
        assert trial.unlike(other, whole), "the seed changes nothing"

    def test_c12_a_stop_is_obeyed_within_one_batch(self, whole: Outcome, cut: Outcome) -> None:
        """C12"""
        asked_after = whole.steps[0][2] + 1
        assert len(cut.steps) <= asked_after + 1, f"{len(cut.steps)} steps, asked to stop after {asked_after}"
        assert [report.epoch for report in cut.reports] == [1], "a half-trained epoch was reported"

    def test_c7_a_stopped_and_resumed_run_ends_as_if_it_had_never_stopped(
        self, trial: Trial, whole: Outcome, cut: Outcome
    ) -> None:
        """C7, C27"""
        trial.needs("resume")
        rest = trial.succeed("rest", resume=cut.resume())
        assert [report.epoch for report in rest.reports] == list(range(2, trial.case.epochs + 1))
        assert trial.unlike(rest, whole) == []

    def test_c8_a_finished_run_that_is_resumed_is_only_evaluated(self, trial: Trial, whole: Outcome) -> None:
        """C8, C27: what was saved and loaded is equal, by the metrics of the model."""
        trial.needs("resume")
        late = trial.succeed("late", resume=whole.resume())
        assert late.reports == ()
        assert late.final is not None and whole.final is not None
        best = trial.framework.best_metrics[trial.case.task].name
        once, again = {best: whole.final[best]}, {best: late.final[best]}
        assert differences(once, again, trial.case.tolerance) == []

    def test_c28_a_damaged_checkpoint_is_refused_with_a_sentence(
        self, trial: Trial, whole: Outcome, tmp_path: Path
    ) -> None:
        """C28"""
        trial.needs("resume")
        resume = whole.resume()
        damages = damaged_copies(resume.path, tmp_path)
        met = trial.run("damage", action="damage", damages=damages, resume=Resume(resume.path, resume.epoch, {}))
        assert met.error is None, met.error
        refused: dict[str, Any] = met.result["damages"]
        for name, error in refused.items():
            # One damaged file among several may be one that resuming does not read.
            if error is None and name not in ("empty", "all-torn", "all-garbage"):
                continue
            assert error is not None, f"the checkpoint '{name}' was taken"
            assert error["code"] == "checkpoint" and " " in error["message"], (name, error)

    def test_c29_a_predictor_answers_in_the_tasks_form(self, trial: Trial, whole: Outcome) -> None:
        """C29"""
        if not trial.framework.predictor:
            pytest.skip(f"{trial.framework.name} names no predictor")
        picture = trial.a_picture()
        file = whole.resume().path / trial.framework.portable_file
        said = trial.run("predict", action="predict", portable_file=file, images=(picture, picture.read_bytes()))
        assert said.error is None, said.error["traceback"] or said.error["message"]
        assert said.result["task"] == trial.case.task
        assert said.result["classes"] == list(trial.dataset.classes)
        by_path, by_bytes = said.result["answers"]
        assert by_path == by_bytes
        with Image.open(picture) as opened:
            assert faults_in(trial.case.task, by_path, trial.dataset.classes, opened.size) == []
        assert said.result["no_picture"]["code"] == "dataset"
        assert said.result["broken"]["code"] == "checkpoint"
        assert (said.writes, said.network, said.left) == ((), (), ())

    def test_c37_every_task_is_tried_or_says_why_not(self, framework: Framework) -> None:
        """C37"""
        tried = {case.task for case in cases_of(type(self))}
        left_out = [task for task in framework.tasks if task not in tried and not self.untried.get(task, "").strip()]
        assert not left_out, f"no case, and no reason in `untried`: {', '.join(left_out)}"
        assert not self.untried.keys() - (set(framework.tasks) - tried), "`untried` names what is tried or no task"

    def test_c33_the_models_offered_can_be_chosen(self, framework: Framework) -> None:
        """C33"""
        for task in framework.tasks:
            cards = [card for card in framework.models if card.task == task]
            assert any(card.status is not ModelStatus.PREDICT_ONLY for card in cards), f"nothing to train for {task}"


def cases_of(suite: type[TrainingConformance]) -> tuple[Case, ...]:
    """What the class tries: its cases, else one for each task of its framework that is not left out."""
    tasks = find_framework(suite.plugin, suite.framework_name).tasks
    return suite.cases or tuple(Case(task) for task in tasks if task not in suite.untried)


def _case_name(case: Case) -> str:
    return f"{case.task}-{case.model}".rstrip("-")
