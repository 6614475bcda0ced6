"""Archives made to harm: nothing in them is run, and none takes much time or memory."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from cifar100.dataset.splits import save_split
from tests.archives import batch, members, refusal, write_archive
from tests.conftest import ROOT


class Runs:
    """A pickle of this creates a file when a careless reader loads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path, archive_files):
    trace = tmp_path / "trace"
    archive_files["train"] = pickle.dumps({b"data": Runs(f"touch {trace}")})
    path = write_archive(tmp_path / "a.tar.gz", archive_files)
    assert "it asks for posix.system" in refusal(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile"])
def test_pickle_that_asks_for_any_other_name_is_refused(tmp_path, archive_files, name):
    module, _, attribute = name.rpartition(".")
    archive_files["test"] = f"c{module}\n{attribute}\n.".encode()
    assert f"it asks for {name}" in refusal(write_archive(tmp_path / "a.tar.gz", archive_files))


def test_pickle_of_an_object_array_is_refused(tmp_path, archive_files, samples):
    content = batch(samples) | {b"data": np.array([{}], dtype=object)}
    archive_files["train"] = pickle.dumps(content, protocol=4)
    assert "array of type object" in refusal(write_archive(tmp_path / "a.tar.gz", archive_files))


class Odd:
    """Unpickled as a type of the other byte order, which a pickle could turn into any other."""

    def __reduce__(self):
        return np.dtype, (">i8", False, True), (3, ">", None, None, None, -1, -1, 1)


def test_pickle_that_changes_a_type_is_refused(tmp_path, archive_files):
    archive_files["train"] = pickle.dumps({b"data": Odd()})
    assert "array of type >i8" in refusal(write_archive(tmp_path / "a.tar.gz", archive_files))


@pytest.mark.parametrize(
    ("name", "kind", "size", "reason"),
    [
        ("cifar-100-python/train", tarfile.SYMTYPE, 0, "no member cifar-100-python/train"),
        ("cifar-100-python/train", tarfile.LNKTYPE, 0, "no member cifar-100-python/train"),
        ("cifar-100-python/train", tarfile.CHRTYPE, 0, "no member cifar-100-python/train"),
        ("cifar-100-python/train", tarfile.FIFOTYPE, 0, "no member cifar-100-python/train"),
        ("cifar-100-python/../train", tarfile.REGTYPE, 0, "no member cifar-100-python/train"),
        ("/tmp/cifar-100-python/train", tarfile.REGTYPE, 0, "no member cifar-100-python/train"),
        ("other", tarfile.REGTYPE, 2**40, "a member claims 1,099,511,627,776 bytes"),
        ("cifar-100-python/train", tarfile.REGTYPE, 2**28 + 1, "a member claims 268,435,457 bytes"),
    ],
)
def test_member_that_is_not_what_it_should_be_is_not_read(
    tmp_path, archive_files, name, kind, size, reason
):
    """Links, devices, names that lead elsewhere, and sizes that no honest archive has."""
    path = tmp_path / "a.tar.gz"
    before = set(tmp_path.rglob("*"))
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for honest in ("meta", "test"):
            info = tarfile.TarInfo(f"cifar-100-python/{honest}")
            info.size = len(archive_files[honest])
            archive.addfile(info, io.BytesIO(archive_files[honest]))
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, size
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else "cifar-100-python/test"
        archive.addfile(member)
    assert reason in refusal(path)
    assert set(tmp_path.rglob("*")) == before | {path}


def test_archive_of_endless_members_takes_no_memory(tmp_path):
    """A million empty members are 500 MB of headers, and a few MB when compressed."""
    path = tmp_path / "a.tar.gz"
    header = tarfile.TarInfo("x").tobuf()
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(1000):
            stream.write(header * 1000)
    started = time.process_time()
    assert "more than 32,768 bytes of headers" in refusal(path)
    assert time.process_time() - started < 1


def test_archive_of_many_large_members_is_refused(tmp_path):
    """Each within what one may have; together they would take minutes to pass over."""
    path = tmp_path / "a.tar.gz"
    header = tarfile.TarInfo("x")
    header.size = 2**27
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(3):
            stream.write(header.tobuf())
            for _ in range(2**7):
                stream.write(bytes(2**20))
    assert "a member claims 134,217,728 bytes" in refusal(path)


# Reads an archive with at most 4 GiB of addresses; tells its refusal, and the MiB it took at most.
READ_WITHIN_LIMITS = """
import re, resource, sys
from pathlib import Path
from cifar100.archive.reader import read_archive
from cifar100.running.errors import PipelineError
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
try:
    read_archive(Path(sys.argv[1]))
except PipelineError as error:
    print(error)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def refusal_in_little_memory(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHIN_LIMITS, str(path)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # each thread takes addresses
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    message, peak = done.stdout.splitlines()
    assert int(peak) < 450
    return message


@pytest.mark.medium
@pytest.mark.parametrize(
    ("kind", "size", "reason"),
    [
        (tarfile.GNUTYPE_LONGNAME, 2**29, "more than 32,768 bytes of headers"),
        (tarfile.GNUTYPE_LONGLINK, 2**29, "more than 32,768 bytes of headers"),
        (tarfile.XHDTYPE, 2**29, "more than 32,768 bytes of headers"),
        (tarfile.XGLTYPE, 2**29, "more than 32,768 bytes of headers"),
        (tarfile.GNUTYPE_LONGNAME, -(2**20), "more than 32,768 bytes of headers"),
        (tarfile.REGTYPE, -(2**40), "a member claims -1,099,511,627,776 bytes"),
        (tarfile.REGTYPE, -512, "a member claims -512 bytes"),
    ],
    ids=["long-name", "long-link", "pax", "global-pax", "negative", "negative-member", "circle"],
)
def test_header_of_any_size_is_refused_before_it_is_read(tmp_path, kind, size, reason):
    """What stands before a member with a long name; members that lead back to themselves."""
    header = tarfile.TarInfo("x" * 100)
    header.type, header.size = kind, size
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size // 2**20):
            stream.write(b"x" * 2**20)
        stream.write(tarfile.TarInfo("cifar-100-python/meta").tobuf())
    assert reason in refusal_in_little_memory(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_header_before_a_header_without_end_is_refused(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type = kind
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() * 5000))
    assert "more than 32,768 bytes of headers" in refusal(path)


@pytest.mark.medium
def test_header_that_some_versions_of_tarfile_search_for_hours_takes_seconds(tmp_path):
    """Digits, which they search for a number at each place and to the end (CVE-2024-6232)."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 30_208
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + b"1" * header.size + bytes(1024)))
    started = time.process_time()
    refusal(path)
    assert time.process_time() - started < 20


def test_sparse_member_that_stands_for_little_and_stores_much_is_not_passed_over(tmp_path):
    """A header of old GNU tar: 1 TiB in the archive, 0 bytes when unpacked."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 2**40
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2**9):
            stream.write(bytes(2**20))
    assert "it claims more than 268,435,456 bytes" in refusal(path)


class Copies:
    """Unpickled as an array of 16 MiB, of which a pickle stores the pixels once for many."""

    state = (1, (2**24,), np.dtype("u1"), False, bytes(2**24))

    def __reduce__(self):
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


class Stretched:
    """Unpickled by NumPy itself as an array of 3 GB, of a single byte."""

    def __reduce__(self):
        return np.ndarray, ((10**6, 3072), "u1", b"x", 0, (0, 0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"Nr\xff\xff\xff\x06.", "it would take more memory"),
        (b"Np%d\n." % 2**27, "it would take more memory"),
        (b"\x8f" * 2**22, "it would take more memory"),
        (pickle.dumps([Copies() for _ in range(100)]), "it would take more memory"),
        (pickle.dumps({b"data": Stretched()}), "'NoneType' object is not callable"),
    ],
    ids=["long-binput", "put", "sets", "arrays", "ndarray"],
)
def test_small_pickle_that_takes_much_memory_is_refused(tmp_path, archive_files, data, reason):
    """An index far behind what is kept, for which Python makes room; millions of empty sets."""
    archive_files["meta"] = data
    assert reason in refusal_in_little_memory(write_archive(tmp_path / "a.tar.gz", archive_files))


# Reads a file with ever more memory at hand; tells each time what came of it.
READ_IN_TOO_LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
from cifar100.archive.reader import read_archive
from cifar100.dataset.splits import load_split
from cifar100.running.errors import PipelineError
read = {"archive": read_archive, "split": load_split}[sys.argv[1]]
used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
for more in range(2**20, 2**27, 2**22):
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        read(Path(sys.argv[2]))
        print("read")
    except MemoryError:
        print("too little memory")
    except PipelineError as error:
        print(error)
"""


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["archive", "split"])
def test_file_that_memory_is_missing_for_is_not_called_damaged(tmp_path, samples, classes, kind):
    """Who is told so would delete it, and download 169 MB again."""
    many = samples.take(np.arange(5000) % len(samples))  # 15 MB
    archive, split = tmp_path / "a.tar.gz", tmp_path / "a.npz"
    write_archive(archive, members(many, many, classes))
    save_split(split, many)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            READ_IN_TOO_LITTLE_MEMORY,
            kind,
            {"archive": archive}.get(kind, split),
        ],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {"read", "too little memory"}
