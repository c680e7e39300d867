"""Jobs that truly try to do harm to files, in every sandbox. Numbers in comments are cases of the hazard list; 0 means "refused"."""

import os
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from cells import SMALL


def test_a_big_file_is_refused_or_ends_the_job(cell):  # 9
    code = "with open(HERE / 'big', 'wb') as f:\n  for _ in range(30): f.write(b'x' * 1_000_000); f.flush()\nresult(1)"
    outcome = cell.says(code, limits=SMALL)
    assert outcome.status == "failed"
    assert (cell.folder / "trial0" / "big").stat().st_size <= 10_000_000


def test_many_big_files_end_the_job(cell):  # 9
    code = "for i in range(30): (HERE / f'{i}').write_bytes(b'x' * 1_000_000); time.sleep(0.03)\nresult(1)"
    assert "limits.disk_mb=10" in cell.says(code, limits=SMALL).message


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_file_in_memory_is_bounded(cell, place):  # 9
    code = (
        f"import tempfile\nplace = tempfile.gettempdir() if {place!r} == '/tmp' else {place!r}\n"
        "with tempfile.NamedTemporaryFile(dir=place) as f:\n  for _ in range(30): f.write(b'x' * 1_000_000); f.flush()\nresult(1)"
    )
    assert cell.says(code, limits=SMALL).status == "failed"


def test_many_files_in_memory_end_the_job(cell):  # 2, 9
    code = (
        "import atexit\nnames = [f'/dev/shm/llmhpo-test-{os.getpid()}-{i}' for i in range(60)]\n"
        "def clear(*_):\n  for name in names: Path(name).unlink(missing_ok=True)\n"
        "signal.signal(15, lambda *_: (clear(), os._exit(1)))\n"
        "fds = []\nfor name in names:\n  fds.append(open(name, 'wb')); os.unlink(name); fds[-1].write(b'x' * 8_000_000); fds[-1].flush()\n"
        "  time.sleep(0.02)\ntime.sleep(60)"
    )
    assert cell.says(code, limits=SMALL).status in ("oom", "failed")


@pytest.mark.parametrize("place", ["HERE", "Path(os.environ['TMPDIR'])"], ids=["own folder", "tmp"])
def test_many_files_end_the_job(cell, place):  # 10
    outcome = cell.says(f"for i in range(5000): ({place} / f'{{i}}').touch()\ntime.sleep(30)", limits=SMALL)
    assert outcome.status == "failed"
    assert "limits.files=200" in outcome.message


def test_a_flood_of_output_is_ended(cell):  # 41
    outcome = cell.says("while True: print('x' * 100_000, flush=True)", limits=SMALL)
    assert "limits.output_mb=5" in outcome.message
    assert (cell.folder / "trial0" / "output.log").stat().st_size < 3_000_000


def test_a_file_of_a_terabyte_without_content_is_refused(cell):  # 11
    code = "(HERE / 'sparse').touch(); tried(lambda: os.truncate(HERE / 'sparse', 1 << 40))"
    assert cell.says(code, limits=SMALL).value == 0


def test_nothing_is_written_into_the_home(cell, bait):  # 14, 23
    names = (".bashrc", ".ssh/authorized_keys", ".ssh/id_ed25519", ".config/autostart", ".local/bin/python", ".cache/x")
    code = (
        f"for name in {names!r}:\n  path = Path({str(bait.home)!r}, name)\n"
        "  try: path.parent.mkdir(parents=True, exist_ok=True); path.write_text('# planted')\n  except OSError: pass\nresult(0)"
    )
    assert cell.says(code).value == 0
    bait.check()  # not what the job saw: the bait lies below /tmp, of which a job may have its own


def test_nothing_is_written_outside(cell):  # 19
    code = (
        "tried((OUTSIDE / 'new').touch, lambda: (OUTSIDE / 'secret').write_text('x'), (OUTSIDE / 'secret').unlink, (OUTSIDE / 'd').mkdir,\n"
        "  Path('/usr/new').touch, Path('/etc/new').touch, Path('/new').touch, Path('/dev/new').touch)"
    )
    assert cell.says(code).value == 0
    assert sorted(p.name for p in cell.outside.iterdir()) == ["secret"]
    assert (cell.outside / "secret").read_text() == "the secret"


def test_nothing_outside_is_read(cell):  # 19
    assert cell.says("tried((OUTSIDE / 'secret').read_text, lambda: list(OUTSIDE.iterdir()))").value == 0


def test_what_is_written_to_tmp_stays_there(cell):  # 19
    name = f"llmhpo-test-{cell.tag}"
    cell.says(
        f"import tempfile\ntried(lambda: Path('/tmp', {name!r}).write_text('x'), lambda: Path('/var/tmp', {name!r}).write_text('x'))"
    )
    assert not os.path.lexists(f"/tmp/{name}")
    assert not os.path.lexists(f"/var/tmp/{name}")


def test_the_code_and_the_data_cannot_be_changed(cell):  # 19
    code = (
        "tried(lambda: (DATA / 'train.csv').write_text('x'), (DATA / 'train.csv').unlink, lambda: os.truncate(DATA / 'train.csv', 0),\n"
        "  Path('new.py').touch, Path(__file__).unlink, lambda: os.rename(DATA, HERE / 'data'))"
    )
    assert cell.says(code).value == 0
    assert (cell.data / "train.csv").read_text() == "1,2,3\n"


def test_modes_and_owners_of_data_do_not_change(cell):  # 19
    before = (cell.data / "train.csv").stat()
    code = (
        "f = open(DATA / 'train.csv')\nfor attempt in (lambda: os.chmod(DATA / 'train.csv', 0), lambda: os.fchmod(f.fileno(), 0),\n"
        "    lambda: os.chown(DATA / 'train.csv', 1, 1), lambda: os.utime(DATA / 'train.csv', (1, 1)), lambda: os.setxattr(DATA / 'train.csv', 'user.x', b'y')):\n"
        "  try: attempt()\n  except OSError as e: print(e)\nresult(0)"
    )
    assert cell.says(code).value == 0
    after = (cell.data / "train.csv").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert os.listxattr(cell.data / "train.csv") == []


def test_a_link_in_the_own_folder_leads_nowhere(cell):  # 20
    code = (
        "(HERE / 'l').symlink_to(OUTSIDE); (HERE / 'f').symlink_to(OUTSIDE / 'new')\n"
        "tried((HERE / 'l/secret').read_text, (HERE / 'l/new').touch, (HERE / 'f').touch)"
    )
    assert cell.says(code).value == 0
    assert not (cell.outside / "new").exists()


def test_a_result_that_is_a_link_is_not_read(cell):  # 20
    (cell.outside / "result").write_text("1")
    outcome = cell.says("os.symlink(OUTSIDE / 'result', os.environ['LLMHPO_RESULT'])")
    assert (outcome.status, outcome.value) == ("invalid", None)


@pytest.mark.parametrize(
    "make",
    [
        "os.mkfifo(R)",
        "os.mkfifo(os.environ['LLMHPO_REPORT']); os.mkfifo(R)",
        "os.symlink('/dev/zero', R)",
        "os.mkdir(R)",
    ],
)
def test_a_result_that_is_no_file_is_invalid(cell, make):  # 21
    start = time.monotonic()
    assert cell.says(f"R = os.environ['LLMHPO_RESULT']\n{make}").status == "invalid"
    assert time.monotonic() - start < 50  # the job's own limit is 60


def test_no_device_can_be_made(cell):  # 21
    assert (
        cell.says(
            "import stat\ntried(lambda: os.mknod(HERE / 'd', stat.S_IFCHR | 0o666, os.makedev(1, 5)), lambda: os.mknod(HERE / 'b', stat.S_IFBLK | 0o666, os.makedev(254, 0)))"
        ).value
        == 0
    )


def test_a_hard_link_to_data_cannot_be_made(cell):  # 22
    code = "def link():\n  os.link(DATA / 'train.csv', HERE / 'h'); (HERE / 'h').write_text('x')\ntried(link, lambda: os.link(OUTSIDE / 'secret', HERE / 's'))"
    assert cell.says(code).value == 0
    assert (cell.data / "train.csv").read_text() == "1,2,3\n"


def test_nothing_persists_in_the_python_environment(cell):  # 23
    folders = {Path(sys.prefix), Path(os.__file__).parent, Path(sysconfig.get_path("purelib"))}
    before = {folder: sorted(folder.iterdir()) for folder in folders}
    code = (  # an attempt that succeeds is taken back at once: this is the machine's own Python
        "def plant(path):\n  path.touch(exist_ok=False); path.unlink()\n"
        f"places = [Path(p) for p in {sorted(map(str, folders))!r}]\n"
        "tried(*[lambda p=p, n=n: plant(p / n) for p in places for n in ('usercustomize.py', 'x.pth')])"
    )
    assert cell.says(code).value == 0
    assert {folder: sorted(folder.iterdir()) for folder in folders} == before


def test_the_user_s_packages_cannot_be_changed(cell, bait):  # 23
    code = (
        "import site\nfolder = Path(site.getusersitepackages())\n"
        f"assert str(folder) == {str(bait.packages)!r}\n"
        "tried(lambda: (folder / 'usercustomize.py').write_text('# planted'), lambda: (folder / 'x.pth').write_text('# planted'))"
    )
    assert cell.says(code).value == 0


def test_what_an_unfenced_job_plants_is_seen_and_harms_nobody(cell, bait):  # 23
    code = "import site\nPath(site.getusersitepackages(), 'usercustomize.py').write_text('# planted')\nresult(1)"
    assert cell.says(code, sandbox=None, read=()).value == 1
    with pytest.raises(AssertionError):
        bait.check()
    (bait.packages / "usercustomize.py").unlink()


def test_what_one_job_plants_in_its_home_is_not_in_that_of_the_next(cell):  # 23
    code = (
        "import site\ndel os.environ['PYTHONUSERBASE']\nsite.USER_BASE = site.USER_SITE = None\n"
        "folder = Path(site.getusersitepackages())\nassert folder.is_relative_to(os.environ['HOME'])\n"
        "seen = (folder / 'usercustomize.py').exists()\n"
        "folder.mkdir(parents=True); (folder / 'usercustomize.py').write_text('# planted')\nresult(float(seen))"
    )
    executor = cell.executor(code)
    outcomes = [executor.submit(cell.job(number)).result(40) for number in range(2)]
    assert [outcome.value for outcome in outcomes] == [0, 0], outcomes


def test_a_module_beside_the_script_is_not_left_to_the_next_job(cell):  # 24
    assert (
        cell.says(
            "tried(lambda: Path('numpy.py').write_text('x'), lambda: (Path(__file__).parent / 'json.py').write_text('x'))"
        ).value
        == 0
    )
    assert sorted(p.suffix for p in cell.code.iterdir()) == [".py"]


def test_no_core_is_dumped(cell):  # 28
    assert cell.says("os.chdir(HERE); os.abort()").status == "failed"
    assert [p.name for p in (cell.folder / "trial0").iterdir() if "core" in p.name] == []


def test_the_limit_on_core_dumps_cannot_be_raised(cell):  # 28
    code = "import resource\ntry: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30)); result(1)\nexcept (OSError, ValueError): result(0)"
    assert cell.says(code).value == 0


def test_pip_installs_nothing(cell):  # 30
    code = "done = subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--retries', '0', '--timeout', '2', 'iniconfig-that-nobody-has'], capture_output=True)\nresult(done.returncode == 0 and 1.0 or 0.0)"
    assert cell.says(code, timeout_s=60).value == 0


@pytest.mark.parametrize("name", ["result.json", "params.json", "weights.pt"])
def test_a_pickle_bomb_is_not_unpickled(cell, name):  # 31
    proof = cell.outside / "unpickled"
    code = (
        f"import pickle\nclass Bomb:\n  def __reduce__(self): return (os.mkdir, ({str(proof)!r},))\n"
        f"(HERE / {name!r}).write_bytes(pickle.dumps(Bomb()))"
    )
    assert cell.says(code).status == "invalid"
    assert not proof.exists()


def test_a_zip_bomb_stays_small_for_the_controller(cell):  # 32
    code = "import zlib\n(HERE / 'result.json').write_bytes(zlib.compress(b'0' * 30_000_000, 9))"
    assert cell.says(code).status == "invalid"


def test_an_unpacked_zip_bomb_ends_the_job(cell):  # 32
    code = (
        "import io, zipfile\nb = io.BytesIO()\nwith zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z:\n  for i in range(30): z.writestr(f'f{i}', b'0' * 2_000_000)\n"
        "zipfile.ZipFile(b).extractall(HERE); time.sleep(30); result(1)"
    )
    assert cell.says(code, limits=SMALL).status == "failed"


def test_what_is_hidden_is_not_seen(cell):
    (cell.code / "labels").mkdir()
    (cell.code / "labels" / "y").write_text("1")
    (cell.code / "answers.csv").write_text("1")
    executor = cell.executor(
        "found = 0\nfor p in (Path('labels/y'), Path('answers.csv')):\n  try: found += len(p.read_text())\n"
        "  except OSError: pass\nresult(found)"
    )
    job = cell.job(hide=(cell.code / "labels", cell.code / "answers.csv"))
    assert executor.submit(job).result(40).value == 0


@pytest.mark.parametrize("way", ["link", "code/../data"])
def test_what_is_hidden_is_not_seen_by_another_name_of_its_folder(cell, way):
    (cell.folder / "link").symlink_to(cell.data)
    (cell.data / "labels").write_text("1")
    places = [str(folder / "labels") for folder in (cell.folder / way, cell.data)]
    executor = cell.executor(
        f"found = 0\nfor p in {places}:\n  try: found += len(Path(p).read_text())\n  except OSError: pass\nresult(found)",
        read=[cell.folder / way],
    )
    assert executor.submit(cell.job(hide=(cell.data / "labels",))).result(40).value == 0
