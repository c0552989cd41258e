"""What a job outlives: drivers that freeze, fall silent or never speak, clusters and records that are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eagleray.control.errors import FencedError
from eagleray.jobs.phases import Phase

from .conftest import House


def test_a_frozen_driver_that_thaws_cannot_speak_for_its_successor(house: House) -> None:
    job_id, old = house.running()
    house.clock.pass_s(2000)
    house.tick(2)
    old.end()
    house.tick(2)
    new = house.driver(job_id)
    new.run()
    with pytest.raises(FencedError, match="attempt 2 has taken its place"):
        old.epoch(7)
    new.epoch(1)
    assert house.job(job_id).epochs_done == 1


def test_silence_is_said_first_and_nothing_is_replaced(house: House) -> None:
    job_id, _driver = house.running()
    house.clock.pass_s(100)
    house.tick(2)
    assert house.job(job_id).phase is Phase.RUNNING
    assert "said nothing" in house.job(job_id).warnings[0]


def test_an_unreachable_cluster_changes_nothing(house: House) -> None:
    job_id, _driver = house.running()
    house.executor.away = True
    house.clock.pass_s(50)
    house.tick(5)
    assert house.job(job_id).phase is Phase.RUNNING
    assert not house.plane.health()["parts"]["dispatcher"]["ok"]
    house.executor.away = False
    house.tick()
    assert house.plane.health()["status"] == "ok"


def test_a_restarted_head_loses_no_job(house: House) -> None:
    job_id, driver = house.running(max_failures=0)
    driver.epoch(1)
    driver.checkpoint(1)
    house.executor.restart_head()
    house.tick(2)
    house.clock.pass_s(10)
    house.tick(2)
    assert (house.attempt(job_id).number, house.job(job_id).phase) == (2, Phase.PREPARING)
    assert house.queries.attempts(job_id)[0].outcome == "preemption"


def test_a_driver_that_ends_without_a_word_is_a_lost_worker(house: House) -> None:
    job_id, _driver = house.running()
    house.executor.ended(f"{job_id}-1", "exit code 137")
    house.tick(3)
    assert house.queries.attempts(job_id)[0].outcome == "worker-lost"
    assert "exit code 137" in house.queries.attempts(job_id)[0].message


def test_last_words_are_waited_for(make_house: Callable[..., House]) -> None:
    house = make_house(grace_s=10.0)
    job_id, driver = house.running()
    driver.end()
    house.tick(2)
    driver.finish("completed")
    house.clock.pass_s(20)
    house.tick(2)
    assert house.job(job_id).phase is Phase.COMPLETED


def test_what_ray_refuses_is_tried_again_later(house: House) -> None:
    job_id = house.create()
    house.executor.refuse = "no such interpreter"
    house.tick()
    assert (house.job(job_id).phase, house.attempt(job_id).outcome) == (Phase.QUEUED, "cluster")
    house.executor.refuse = ""
    house.clock.pass_s(60)
    house.tick(2)
    assert house.attempt(job_id).state == "submitted"


def test_a_driver_that_never_says_a_word_is_replaced(make_house: Callable[..., House]) -> None:
    house = make_house(start_s=300.0)
    job_id = house.create()
    house.tick(2)
    house.clock.pass_s(200)
    house.restart()
    house.clock.pass_s(90)
    house.tick(2)
    assert house.attempt(job_id).outcome is None, "it has its whole time, also over a restart"
    house.clock.pass_s(20)
    house.tick(2)
    assert house.queries.attempts(job_id)[0].message == "Its driver has not said a word within 300 s."
    assert house.job(job_id).phase is Phase.QUEUED
    house.executor.ended(f"{job_id}-1")
    house.tick(2)
    assert house.attempt(job_id).number == 2


def test_a_job_whose_record_is_gone_says_so(house: House) -> None:
    job_id = house.create()
    house.store.delete(f"jobs/{job_id}.json")
    house.tick()
    assert "Its record is gone: Unknown job" in house.queries.attempts(job_id)[0].message
    assert house.executor.starts == {}
