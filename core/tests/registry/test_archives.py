"""Attacks S6, S7 and S12: every archive becomes plain files in its folder, or one of our own errors and nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray.contract.errors import DatasetError, EaglerayError, StorageError
from eagleray.registry import DatasetRegistry, Limits
from eagleray.registry.progress import quiet
from eagleray.registry.sources.archive import unpack
from eagleray.registry.sources.opening import open_archive

Read = Callable[[Path], dict[str, bytes]]
SMALL = Limits(max_bytes=1 << 20, max_files=100, dense_bytes=64 << 10, min_free_bytes=0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where archives are unpacked; after the test nothing may lie beside it."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "target").write_text("untouched")
    yield tmp_path / "inside"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "a") == ["inside", "target"]
    assert (tmp_path / "target").read_text() == "untouched"
    assert not Path("/tmp/eagleray-pwned").exists()


def unpacked(place: Path, data: bytes, limits: Limits = SMALL) -> Path:
    (place.parent / "a").write_bytes(data)
    unpack(place.parent / "a", place, limits, quiet)
    return place


def refused(place: Path, data: bytes, match: str, limits: Limits = SMALL) -> None:
    """By way of `open_archive`, as an import does, which leaves nothing."""
    (place.parent / "a").write_bytes(data)
    with pytest.raises(DatasetError, match=match), open_archive(place.parent / "a", place, limits, quiet):
        raise AssertionError("it was unpacked")
    assert not list(place.iterdir())


def make_zip(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data, compress_type=method)
    return file.getvalue()


def special_zip(name: str, mode: int, data: bytes = b"/etc/passwd") -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    return make_zip(("a.txt", b"a"), (info, data))


def make_tar(*members: tuple[str | tarfile.TarInfo, bytes], end: bool = True) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    data = file.getvalue()
    return data if end else data.rstrip(b"\0")


def special_tar(kind: bytes, target: str = "", name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return make_tar(("a.txt", b"a"), (info, b""))


PLAIN = {"data.yaml": b"names: [a]\n", "train/images/\u00e4 b.png": b"\x89PNG", "train/labels/a.txt": b""}
PACKED = {
    "zip": make_zip(*PLAIN.items()),
    "stored zip": make_zip(*PLAIN.items(), method=zipfile.ZIP_STORED),
    "bzip2 zip": make_zip(*PLAIN.items(), method=zipfile.ZIP_BZIP2),
    "zip after other bytes": b"PK\x03\x04" + bytes(100) + make_zip(*PLAIN.items()),
    "tar": make_tar(*PLAIN.items()),
    "tar.gz": gzip.compress(make_tar(*PLAIN.items())),
    "tar.bz2": bz2.compress(make_tar(*PLAIN.items())),
    "tar.xz": lzma.compress(make_tar(*PLAIN.items())),
    "two gz": gzip.compress(make_tar(*PLAIN.items())[:700]) + gzip.compress(make_tar(*PLAIN.items())[700:]),
    "two xz": lzma.compress(make_tar(*PLAIN.items())[:700])
    + bytes(4)
    + lzma.compress(make_tar(*PLAIN.items())[700:])
    + bytes(8),
    "dot tar": make_tar(*[(f"./{name}", data) for name, data in PLAIN.items()]),
}


@pytest.mark.parametrize("kind", PACKED)
def test_files_come_out_as_they_went_in(kind: str, place: Path, contents: Read) -> None:
    assert contents(unpacked(place, PACKED[kind])) == PLAIN


NAMES = {
    "../up": "leads out",
    "a/../../up": "leads out",
    "/etc/passwd": "not a path inside",
    "C:\\windows": "not a path inside",
    "C:/windows": "not a path inside",
    "..\\up": "not a path inside",
    "~root/x": "not a path inside",
    "a//b": "leads out of it or says nothing",
    "a/./b": "leads out of it or says nothing",
    "a\nb": "control characters",
    "a\x1b[2Jb": "control characters",
    "x" * 256: "too long",
    "/".join(["abcdefgh"] * 120): "too long",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_name_that_is_no_plain_path_refuses_the_whole(make: Callable[..., bytes], name: str, place: Path) -> None:
    refused(place, make(("first.txt", b"a"), (name, b"pwned")), NAMES[name])


def test_a_name_with_a_nul_is_seen_as_it_is(place: Path) -> None:
    data = make_zip(("first.txt", b"a"), ("evil#.txt", b"b")).replace(b"evil#", b"evil\0")
    refused(place, data, "control characters|broken")


PAIRS = {
    ("a.txt", "a.txt"): "twice",
    ("a.txt", "A.TXT"): "hold for one",
    ("\u00e9.txt", "e\u0301.txt"): "hold for one",
    ("a", "a/b.txt"): "hold for one",
    ("a/b.txt", "a"): "twice",
    ("a/b.txt", "A/c.txt"): "hold for one",
    ("stra\u00dfe.txt", "STRASSE.txt"): "hold for one",
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet_refuse_the_whole(make: Callable[..., bytes], pair: tuple[str, str], place: Path) -> None:
    refused(place, make((pair[0], b"1"), (pair[1], b"2")), PAIRS[pair])


@pytest.mark.parametrize(
    "data",
    [
        special_zip("link", stat.S_IFLNK),
        special_zip("device", stat.S_IFCHR),
        special_zip("pipe", stat.S_IFIFO),
        special_tar(tarfile.SYMTYPE, "/etc/passwd"),
        special_tar(tarfile.SYMTYPE, "../target"),
        special_tar(tarfile.LNKTYPE, "a.txt"),
        special_tar(tarfile.LNKTYPE, "../../target"),
        special_tar(tarfile.CHRTYPE),
        special_tar(tarfile.BLKTYPE),
        special_tar(tarfile.FIFOTYPE),
        special_tar(tarfile.CONTTYPE + b"")[:0] or special_tar(b"V"),
    ],
)
def test_a_link_or_a_device_refuses_the_whole(data: bytes, place: Path) -> None:
    refused(place, data, "a link|leads out")


def test_a_file_never_goes_through_a_link_of_the_same_archive(place: Path) -> None:
    link = tarfile.TarInfo("door")
    link.type, link.linkname = tarfile.SYMTYPE, ".."
    refused(place, make_tar((link, b""), ("door/target", b"pwned")), "a link")


def test_a_sparse_file_is_refused(place: Path) -> None:
    info = tarfile.TarInfo("holes.bin")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,1"}
    refused(place, make_tar((info, b"x")), "holes")


def test_more_bytes_than_allowed_are_refused_while_they_come(place: Path) -> None:
    noise = random.Random(0).randbytes(600 << 10)
    both = [("a.bin", noise), ("b.bin", noise)]
    refused(place, make_zip(*both), "1,048,576")
    refused(place, make_tar(*both), "1,048,576")


def test_a_directory_that_lies_about_sizes_gains_nothing(place: Path) -> None:
    data = bytearray(make_zip(("a.bin", random.Random(0).randbytes(2 << 20)), method=zipfile.ZIP_STORED))
    central = data.rfind(b"PK\x01\x02")
    struct.pack_into("<2L", data, central + 20, 2 << 20, 10)
    struct.pack_into("<2L", data, 18, 2 << 20, 10)
    with pytest.raises(DatasetError):
        unpacked(place, bytes(data))
    assert sum(path.stat().st_size for path in place.rglob("*")) <= 1 << 20


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_bomb_is_refused_by_its_ratio(pack: Callable[[bytes], bytes], place: Path) -> None:
    limits = Limits(max_bytes=1 << 40, dense_bytes=1 << 20, min_free_bytes=0)
    refused(place, pack(make_tar(("zeros.bin", bytes(40 << 20)))), "times its size", limits)


def test_a_zip_bomb_is_refused_by_its_ratio(place: Path) -> None:
    limits = Limits(max_bytes=1 << 40, dense_bytes=1 << 20, min_free_bytes=0)
    refused(place, make_zip(("zeros.bin", bytes(40 << 20))), "times its size", limits)


def test_a_bomb_inside_an_archive_stays_packed(place: Path, contents: Read) -> None:
    inner = make_zip(("zeros.txt", bytes(60 << 10)))
    assert contents(unpacked(place, make_zip(("inner.zip", inner)))) == {"inner.zip": inner}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_more_files_than_allowed_are_refused(make: Callable[..., bytes], place: Path) -> None:
    refused(place, make(*[(f"{number}.txt", b"") for number in range(101)]), "more than 100 files")


def test_a_directory_of_a_million_entries_is_counted_before_it_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_zip(*[(f"{number}.txt", b"") for number in range(300)])
    monkeypatch.setattr(zipfile, "ZipFile", None)
    refused(place, data, "more than 100 files")


def test_a_zip_of_nothing_but_ends_is_broken(place: Path) -> None:
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    refused(place, b"PK\x03\x04" + locator + end, "broken")


def test_a_tar_header_may_not_fill_the_memory(place: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    refused(place, header.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "A header of")


def test_a_chain_of_tar_headers_ends_in_an_error_of_ours(place: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 512
    record = b"511 path=" + b"a" * 501 + b"\n\0"
    refused(place, (header.tobuf() + record) * 2000, "broken", Limits(min_free_bytes=0))


def test_a_negative_size_is_refused(place: Path) -> None:
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {"size": "-512"}
    refused(place, make_tar((info, b"")), "broken|a link")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_truncated_archive_is_refused_at_every_length(kind: str, place: Path) -> None:
    data = PACKED[kind] if kind != "tar" else make_tar(*PLAIN.items(), end=False)
    for length in range(1, len(data), max(1, len(data) // 60)):
        refused(place, data[:length], "broken|not an archive|not a whole")


def test_a_tar_cut_off_between_two_files_is_refused(place: Path) -> None:
    refused(place, make_tar(("a.txt", b"a" * 512), end=False), "its end is missing")


def test_a_bad_checksum_is_refused(place: Path) -> None:
    data = bytearray(make_zip(("a.txt", b"hello world"), method=zipfile.ZIP_STORED))
    data[data.find(b"hello")] ^= 1
    refused(place, bytes(data), "broken.*CRC")


def test_an_encrypted_zip_is_refused(place: Path) -> None:
    data = bytearray(make_zip(("a.txt", b"secret")))
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    refused(place, bytes(data), "encrypted")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not an archive"),
        (b"hello", "not an archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07", "RAR"),
        (gzip.compress(b"no tar in it"), "broken"),
        (gzip.compress(b""), "broken"),
    ],
)
def test_what_is_no_archive_is_told(data: bytes, match: str, place: Path) -> None:
    refused(place, data, match)


def test_zip_lzma_is_refused_for_what_its_header_may_ask(place: Path) -> None:
    refused(place, make_zip(("a.txt", b"a"), method=zipfile.ZIP_LZMA), "method")


def test_xz_that_asks_for_too_much_memory_is_refused(place: Path) -> None:
    filters = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "nice_len": 3, "mf": lzma.MF_HC3}
    ]
    try:
        data = lzma.compress(make_tar(*PLAIN.items()), filters=filters)
    except MemoryError:
        pytest.skip("this machine cannot even pack it")
    refused(place, data, "broken.*[Mm]emory")


def test_a_full_disk_is_told_before_anything_is_unpacked(place: Path) -> None:
    (place.parent / "a").write_bytes(PACKED["zip"])
    with pytest.raises(StorageError, match="bytes free"):
        unpack(place.parent / "a", place, Limits(min_free_bytes=1 << 60), quiet)
    assert not list(place.iterdir())


def test_nothing_in_an_archive_is_ever_loaded(place: Path, registry: DatasetRegistry, folder: Path) -> None:
    bad = b"cos\nsystem\n(S'touch /tmp/eagleray-pwned'\ntR."
    members = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in folder.rglob("*.*")]
    poison = [
        "model.pt",
        "m.pkl",
        "m.joblib",
        "labels.npy",
        "m.h5",
        "sitecustomize.py",
        "train/labels/train-0000.cache",
    ]
    (place.parent / "a").write_bytes(make_zip(*members, *[(name, bad) for name in poison]))
    version = registry.import_upload(place.parent / "a", name="coins", filename="coins.zip").version
    assert version.num_images == 8
    assert not set(poison) & set(registry.files("coins"))
    for name in ("home", "store", "source"):
        shutil.rmtree(place.parent / name)


def bits_flipped(data: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", PACKED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_any_damage_gives_files_inside_or_an_error_of_ours(
    kind: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    (root / "inside").mkdir()
    (root / "a").write_bytes(bits_flipped(PACKED[kind], seed))
    try:
        unpack(root / "a", root / "inside", SMALL, quiet)
    except EaglerayError:
        pass
    assert sorted(path.name for path in root.iterdir()) == ["a", "inside"]
    assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in (root / "inside").rglob("*"))


@settings(max_examples=100, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=5), as_zip=st.booleans())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_names_give_files_inside_or_an_error_of_ours(
    names: list[str], as_zip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("names")
    (root / "inside").mkdir()
    try:
        data = (make_zip if as_zip else make_tar)(*[(name, b"x") for name in names])
    except (ValueError, UnicodeError, zlib.error, IndexError):
        return  # the packer itself cannot write it; an IndexError is zipfile's, for a name that begins with NUL
    (root / "a").write_bytes(data)
    try:
        unpack(root / "a", root / "inside", SMALL, quiet)
    except EaglerayError:
        pass
    else:
        assert sum(1 for path in (root / "inside").rglob("*") if path.is_file()) == len(names)
    assert sorted(path.name for path in root.iterdir()) == ["a", "inside"]
