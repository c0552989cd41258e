"""The same control plane on a real PostgreSQL, which is killed, restarted and made read-only under it (F23)."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.settings import ControlSettings
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor

from .conftest import SPEC, House, check

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    # SQLAlchemy drops connections whose server has gone without closing them; there is nothing left to close.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Server:
    """A PostgreSQL of the test's own. It refuses to run as root, so root hands it to the user `postgres`."""

    def __init__(self, folder: Path) -> None:
        binaries = _binaries()
        if binaries is None:
            pytest.skip("needs Debian's postgresql")
        self._bin = binaries
        self._data = folder / "data"
        self._user = "postgres" if os.getuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        subprocess.run(
            [self._bin / "initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "--no-sync"],
            user=self._user,
            check=True,
            capture_output=True,
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*map(str, command), "-k", str(self._data)],
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def kill(self) -> None:
        """PostgreSQL's immediate shutdown: every backend ends where it is, and the next start recovers from the log."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def dump(self) -> bytes:
        """What `pg_dump` writes."""
        return subprocess.run([self._bin / "pg_dump", self.url], check=True, capture_output=True).stdout

    def restore(self, dump: bytes) -> None:
        """Into an empty database, by `psql`."""
        self.sql("DROP SCHEMA public CASCADE")
        command = [str(self._bin / "psql"), "-q", "-v", "ON_ERROR_STOP=1", self.url]
        subprocess.run(command, input=b"CREATE SCHEMA IF NOT EXISTS public;\n" + dump, check=True, capture_output=True)

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not in pytest's folder, which only its own user may enter.
    with tempfile.TemporaryDirectory(prefix="eagleray-postgresql-", ignore_cleanup_errors=True) as folder:
        made = Server(Path(folder))
        made.start()
        yield made
        made.close()


@pytest.fixture
def house(server: Server, tmp_path: Path) -> Iterator[House]:
    server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    made = House(tmp_path)
    made.engine = open_database(server.url, tmp_path)
    made.store = LocalStore(tmp_path / "store")
    made.executor = SimulatedExecutor()
    settings = ControlSettings(poll_s=0.0, grace_s=0.0, max_drivers=100)
    made.plane = ControlPlane(made.engine, made.executor, made.store, check, settings=settings, clock=made.clock)
    made.plane.start(dispatch=False)
    made.queries = Queries(made.engine)
    yield made
    made.close()


def test_a_job_goes_its_whole_way(house: House) -> None:
    job_id, driver = house.running()
    for epoch in (1, 2, 3, 4):
        driver.epoch(epoch, loss=float("nan"), accuracy=epoch / 4)
        driver.checkpoint(epoch)
    driver.say({"type": "log", "rank": 0, "lines": ["one\0two"]})
    driver.finish("completed")
    house.tick()
    assert house.job(job_id).status == "completed"
    assert [point.value for point in house.queries.metrics(job_id, ["accuracy"])] == [0.25, 0.5, 0.75, 1.0]
    assert house.queries.logs(job_id)[0].text == "one�two"


def test_a_second_control_plane_is_refused(house: House, server: Server, tmp_path: Path) -> None:
    from eagleray.control.errors import DatabaseBusyError

    engine = open_database(server.url, tmp_path)
    second = ControlPlane(engine, house.executor, house.store, check)
    with pytest.raises(DatabaseBusyError, match="Another control plane"):
        second.start(dispatch=False)
    engine.dispose()


@pytest.mark.parametrize("fault", ["kill", "terminate"])
def test_connections_that_are_lost_in_mid_work_cost_no_command_and_double_none(
    house: House, server: Server, fault: str
) -> None:
    from eagleray.contract.errors import EaglerayError
    from eagleray.control.commands import SYSTEM

    stop, made = threading.Event(), []

    def create() -> None:
        while not stop.is_set():
            try:
                made.append(house.plane.create_job(SYSTEM, SPEC)["id"])
            except EaglerayError:
                time.sleep(0.2)

    worker = threading.Thread(target=create)
    worker.start()
    for _ in range(3):
        time.sleep(0.5)
        if fault == "kill":
            server.kill()
            server.start()
        else:
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    before = len(made)
    deadline = time.monotonic() + 30
    while len(made) <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    worker.join(60)
    assert len(made) > before, "it goes on"
    found = [view.id for view in house.queries.list_jobs(limit=10_000)[0]]
    assert set(made) <= set(found)
    assert len(found) == len(set(found))
    assert len(set(made)) == len(made)


def test_a_server_that_turns_read_only_refuses_and_forgets_nothing(house: House, server: Server) -> None:
    from eagleray.control.errors import DatabaseError

    job_id = house.create(start=False)
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    server.sql("SELECT pg_reload_conf()")
    time.sleep(0.5)
    with pytest.raises(DatabaseError):
        house.create(start=False)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)
    assert house.create(start=False) > job_id


def test_a_dump_put_into_an_empty_database_brings_the_jobs_back(house: House, server: Server) -> None:
    job_id, driver = house.running()
    driver.epoch(1, accuracy=0.5)
    driver.checkpoint(1)
    dump = server.dump()
    lost = house.create(start=False)
    house.close()
    server.restore(dump)
    house.engine = open_database(server.url, house.folder)
    house.plane = ControlPlane(
        house.engine, house.executor, house.store, check, settings=house.settings, clock=house.clock
    )
    house.plane.start(dispatch=False)
    house.queries = Queries(house.engine)
    assert [view.id for view in house.queries.list_jobs(limit=10)[0]] == [job_id]
    driver.finish("completed")
    house.tick()
    assert house.job(job_id).status == "completed"
    assert [point.value for point in house.queries.metrics(job_id, ["accuracy"])] == [0.5]
    # Numbers are not given out twice: the store still knows what was made after the dump.
    assert house.create(start=False) > lost
