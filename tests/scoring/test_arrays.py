"""Files that a cheater wrote for the scorer. Numbers in comments are cases of the hazard list."""

import contextlib
import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.scoring.arrays import UnreadableError, check, is_constant, parse, read_file

CAP = 1 << 20


def npy(array, **settings):
    file = io.BytesIO()
    np.save(file, array, **settings)
    return bytearray(file.getvalue())


def header(text, body=b"", version=b"\x01\x00"):
    data = text.encode("latin1")
    return bytearray(
        b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(data)) + data + body
    )


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, bytes(data))
    return bytearray(file.getvalue())


def safetensors(entries, body):
    head = json.dumps(entries).encode()
    return bytearray(len(head).to_bytes(8, "little") + head + body)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_plain_file_is_read_whole(tmp_path):
    (tmp_path / "p.npy").write_bytes(b"x" * 100_000)
    assert read_file(tmp_path / "p.npy", CAP) == b"x" * 100_000


def link(path):  # 20
    path.with_name("labels").write_bytes(b"labels")
    path.symlink_to(path.with_name("labels"))


def hard_link(path):  # 22
    path.with_name("labels").write_bytes(b"labels")
    os.link(path.with_name("labels"), path)


def sparse(path):  # 11
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: None, "is missing"),
        (link, "is a symbolic link"),
        (hard_link, "2 names"),
        (sparse, "1099511627776 bytes; at most 1048576"),
        (os.mkfifo, "not a regular file"),  # 21
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a symbolic link"),  # 21
    ],
    ids=["missing", "symlink", "hard link", "sparse", "fifo", "folder", "device"],
)
@pytest.mark.timeout(10)
def test_what_is_no_plain_file_of_its_own_is_refused_at_once(tmp_path, make, words):
    make(tmp_path / "p.npy")
    with pytest.raises(UnreadableError, match=words):
        read_file(tmp_path / "p.npy", CAP)


def test_a_folder_that_became_a_link_is_refused(tmp_path):  # 20
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "p.npy").write_bytes(b"x")
    (tmp_path / "trial").symlink_to(tmp_path / "secret")
    with pytest.raises(UnreadableError, match="folder cannot be opened"):
        read_file(tmp_path / "trial" / "p.npy", CAP)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        np.array([True, False]),
        np.float16([1, 2]),
        np.zeros((0, 3)),
        np.array(3.0),
    ],
    ids=["floats", "Fortran order", "big endian", "booleans", "halves", "empty", "scalar"],
)
def test_an_array_of_numbers_is_read_as_it_was_written(array):
    found = parse(npy(array), ".npy", CAP)
    assert np.array_equal(found, array)
    assert found.dtype.isnative


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("bomb",))


@pytest.mark.parametrize(
    "data, words",
    [
        (npy(np.array([Bomb()]), allow_pickle=True), "holds 'object'"),  # 31
        (npy(np.array(["a"])), "<U1"),
        (npy(np.zeros(3, dtype=[("a", "f8")])), "holds"),
        (npy(np.zeros(2, dtype=complex)), "complex128"),
        (npy(np.arange(5.0))[:-8], "do not fit"),
        (npy(np.arange(5.0)) + b"x" * 8, "do not fit"),
        (b"", "not a valid .npy"),
        (b"\x80\x04K\x01.", "not a valid .npy"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**9)}"), "not a valid|do not fit"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"), "do not fit"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", b"x" * 8), "has the shape"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", b"x" * 8), "has the shape"),
        (header("{'descr': '|V0', 'fortran_order': False, 'shape': (1000,)}"), "holds"),
        (header("(" * 1000), "not a valid"),
        (header("[" * 60_000), "not a valid"),
        (header("1" * 5000), "not a valid"),
        (header("x", version=b"\x03\x00"), "version 3.0"),
        (npy(np.array([True]))[:-1] + b"\x02", "neither true nor false"),
        (npy(np.zeros((1,) * 20)), "at most 8 dimensions"),
        (header("{'descr': (), 'fortran_order': False, 'shape': (1,)}\n"), "not a valid"),
    ],
    ids=range(20),
)
def test_a_hostile_npy_is_refused_and_nothing_in_it_is_run(tmp_path, monkeypatch, data, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnreadableError, match=words):
        parse(bytearray(data), ".npy", CAP)
    assert list(tmp_path.iterdir()) == []


WHOLE = {
    ".npy": npy(np.arange(12.0).reshape(3, 4)),
    ".npz": zipped([("w.npy", npy(np.arange(12.0))), ("b.npy", npy(np.zeros(3)))], zipfile.ZIP_DEFLATED),
    ".safetensors": safetensors({"w": {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]}}, bytes(24)),
}


@given(st.sampled_from(sorted(WHOLE)), st.binary(max_size=60), st.integers(0, 500), st.integers(0, 60))
@settings(max_examples=400, deadline=None)
def test_no_damage_to_a_file_escapes_as_another_error(suffix, noise, at, cut):
    data = bytearray(WHOLE[suffix])
    data[at : at + cut] = noise
    with contextlib.suppress(UnreadableError):
        found = parse(data, suffix, CAP)
        arrays = found.values() if isinstance(found, dict) else [found]
        assert all(array.dtype.kind in "biuf" for array in arrays)


def test_several_arrays_by_name_are_read_from_npz():
    file = io.BytesIO()
    np.savez_compressed(file, w=np.ones((2, 2)), b=np.zeros(2))
    found = parse(bytearray(file.getvalue()), ".npz", CAP)
    assert {name: a.shape for name, a in found.items()} == {"w": (2, 2), "b": (2,)}


def test_a_zip_bomb_is_refused_by_what_it_would_unpack_to():  # 32
    bomb = zipped([(f"{i}.npy", npy(np.zeros(100_000))) for i in range(20)], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(UnreadableError, match=r"holds 160\d+ bytes when unpacked"):
        parse(bomb, ".npz", 1 << 22)


def test_a_zip_that_lies_about_its_sizes_is_refused():  # 32
    data = zipped([("w.npy", npy(np.zeros(10_000)))], zipfile.ZIP_DEFLATED)
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 200)
    with pytest.raises(UnreadableError):
        parse(data, ".npz", 1000)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_lies_about_its_sizes_takes_no_memory(packing):  # 32
    data = zipped([("w.npy", bytes(30_000_000))], packing)
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 200)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError):
            parse(data, ".npz", CAP)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "members",
    [
        [("w.txt", b"x")],
        [("w.npy", npy(np.zeros(1))), ("w.npy", npy(np.ones(1)))],
        [("a\x1b[2J.npy", npy(np.zeros(1)))],
        [(f"{'x' * 300}.npy", npy(np.zeros(1)))],
        [("w.npy", npy(np.array([Bomb()]), allow_pickle=True))],
        [("w.npy", b"no array")],
    ],
    ids=["text", "twice", "escape", "long name", "pickle", "broken"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_no_array_is_refused(members):
    with pytest.raises(UnreadableError):
        parse(zipped(members), ".npz", CAP)


def test_safetensors_are_read_bfloat16_too(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.arange(4, dtype=np.float32), "n": np.array([7])}, tmp_path / "w.safetensors", {"note": "x"})
    found = parse(bytearray((tmp_path / "w.safetensors").read_bytes()), ".safetensors", CAP)
    assert found["w"].tolist() == [0, 1, 2, 3]
    assert found["n"].tolist() == [7]
    half = safetensors({"h": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"\x80\x3f")
    assert parse(half, ".safetensors", CAP)["h"].tolist() == [1.0]


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (1 << 60).to_bytes(8, "little") + b"{}",
        safetensors({"w": ENTRY | {"data_offsets": [0, 1 << 50]}}, b"x" * 8),
        safetensors({"w": ENTRY | {"data_offsets": [-8, 0]}}, b"x" * 8),
        safetensors({"w": ENTRY | {"shape": [2.0]}}, b"x" * 8),
        safetensors({"w": ENTRY | {"dtype": "OBJ"}}, b"x" * 8),
        safetensors({"w": ENTRY, "v": ENTRY}, b"x" * 8),
        safetensors({"w": ENTRY}, b"x" * 16),
        safetensors([1], b""),
        safetensors(5, b""),
        safetensors({"w": None}, b""),
        bytearray((60_000).to_bytes(8, "little") + b"[" * 60_000),
    ],
    ids=range(12),
)
def test_hostile_safetensors_are_refused(data):
    with pytest.raises(UnreadableError):
        parse(bytearray(data), ".safetensors", CAP)


# --- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])  # 35, 36
def test_a_value_that_is_not_finite_is_refused_and_its_place_named(bad):
    array = np.zeros((3, 2))
    array[1, 0] = bad
    with pytest.raises(UnreadableError, match=r"1 values that are not finite, the first at \(1, 0\)"):
        check(array)


@pytest.mark.parametrize(
    "shape, declared, labels, good",
    [
        ((5,), None, (5,), True),
        ((5, 10), None, (5,), True),
        ((5, 3), None, (5, 3), True),
        ((4,), None, (5,), False),
        ((), None, (5,), False),
        ((5, 1), None, (5,), False),
        ((5, 5), None, (5,), False),
        ((5,), None, (5, 1), False),
        ((5, 0), None, (5,), False),
        ((5, 0, 5), None, (5,), False),
        ((5, 3), None, (5, 1), True),
        ((5, 3, 8, 8), None, (5, 1, 8, 8), True),
        ((5, 1, 8, 8), None, (5, 3, 8, 8), False),
        ((5, 5, 8, 8), None, (5, 8, 8), False),
        ((5, 3, 8, 8), None, (5, 8, 8), True),
        ((1, 3), None, (1,), True),
        ((1,), None, (1, 3), False),
        ((5, 1), (5, 1), (5,), True),
        ((5, 10), (5, None), (5,), True),
        ((5, 10), (5, 9), (5,), False),
        ((5,), (5, None), (5,), False),
        ((5, 0), (5, None), (5,), False),
        ((7,), (7,), (5,), True),
        ((7,), None, None, True),
        ((0,), None, None, False),
    ],
    ids=str,
)
def test_the_shape_is_the_declared_one_or_fits_the_labels_without_being_stretched(shape, declared, labels, good):
    if good:
        check(np.ones(shape), declared, labels)
    else:
        with pytest.raises(UnreadableError, match="has the shape"):
            check(np.ones(shape), declared, labels)


@pytest.mark.parametrize(
    "array, constant",
    [
        ([1, 1, 1], True),
        ([1, 1, 2], False),
        ([[1, 2], [1, 2]], True),
        ([[1, 2], [1, 3]], False),
        ([1], False),
        ([], False),
    ],
)
def test_equal_rows_are_constant(array, constant):
    assert is_constant(np.array(array)) is constant
