"""The part of the suite that trains with two workers, two processes of this machine."""

from __future__ import annotations

from dataclasses import replace

from eagleray.testing.attempts import Outcome
from eagleray.testing.conformance.case import differences
from eagleray.testing.conformance.suite import Conformance
from eagleray.testing.conformance.trial import Trial, without_error

WORKERS = 2
EPOCHS = 2


class WorkersConformance(Conformance):
    """What two workers do together."""

    def test_c34_two_workers_train_what_one_trains_on_the_whole_batch(self, trial: Trial) -> None:
        """C34"""
        trial.needs("several_workers")
        case = trial.case
        dataset = case.write_dataset(trial.folder / "batches", case.workers_images)
        config = {**case.config, **case.workers_config}
        changes = {"config": config, "batch_size": case.workers_batch_size, "epochs": EPOCHS}
        alone = trial.succeed("alone", dataset=dataset, **changes)
        both = [
            without_error(outcome)
            for outcome in trial.runner.run_workers(trial.spec("both", dataset=dataset, **changes), WORKERS)
        ]
        batches = -(-dataset.splits["train"].num_images // case.workers_batch_size)
        counted = {(outcome.steps[0][2], len(outcome.steps)) for outcome in (alone, *both)}
        assert counted == {(batches, batches * EPOCHS)}, f"batches of an epoch and in all: {counted}"
        for one, two in zip(alone.reports, both[0].reports, strict=True):
            first, second = (case.told(report.metrics, *case.workers_untold) for report in (one, two))
            assert differences(first, second, case.workers_tolerance) == [], f"epoch {one.epoch}"

    def test_c35_every_worker_reports_every_epoch_and_only_the_first_saves(self, trial: Trial) -> None:
        """C35, C5, C6"""
        trial.needs("several_workers")
        workers = [without_error(outcome) for outcome in trial.runner.run_workers(trial.spec("group"), WORKERS)]
        epochs = list(range(1, trial.case.epochs + 1))
        assert [[report.epoch for report in worker.reports] for worker in workers] == [epochs] * WORKERS
        assert all(report.checkpoint is None for report in workers[1].reports)
        assert all(report.checkpoint is not None for report in workers[0].reports)
        assert workers[1].best is None or workers[0].best is not None
        assert _reduced(workers), "the workers report different figures for what they measured together"
        assert [(worker.writes, worker.network, worker.left) for worker in workers] == [((), (), ())] * WORKERS

    def test_c36_a_stop_that_one_worker_sees_first_ends_all(self, trial: Trial) -> None:
        """C36"""
        trial.needs("several_workers")
        spec = trial.spec("stopped")
        steps = trial.dataset.splits["train"].num_images // trial.case.batch_size
        late = trial.runner.run_workers(replace(spec, stop_after_steps=steps + 1), WORKERS)
        workers = [without_error(outcome) for outcome in late]
        assert [[report.epoch for report in worker.reports] for worker in workers] == [[1]] * WORKERS


def _reduced(workers: list[Outcome]) -> bool:
    """Whether no metric that both workers report differs between them."""
    first, second = workers
    for one, two in zip(first.reports, second.reports, strict=True):
        shared = one.metrics.keys() & two.metrics.keys()
        if differences({n: one.metrics[n] for n in shared}, {n: two.metrics[n] for n in shared}, 1e-9):
            return False
    return True
