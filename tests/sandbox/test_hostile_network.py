"""Jobs that truly try to reach a network or a socket, in every sandbox. Numbers in comments are cases of the hazard list; 0 means "refused"."""

import socket
import threading
import time

import pytest


def test_there_is_no_tcp(cell):  # 16, 18
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"tried(*[lambda h=h, p=p: socket.create_connection((h, p), 1) for h, p in (('127.0.0.1', {port}), ('192.0.2.1', 80))])"
        assert cell.says(code).value == 0


def test_there_is_no_tcp_over_ipv6(cell):  # 16
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        code = f"tried(lambda: socket.create_connection(('::1', {server.getsockname()[1]}), 1))"
        assert cell.says(code).value == 0


def test_nothing_is_heard_by_udp(cell):  # 17
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.3)
        port = server.getsockname()[1]
        code = f"tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port})))"
        cell.says(code)
        with pytest.raises(TimeoutError):
            server.recv(1)


def test_no_name_is_resolved(cell):  # 17
    assert cell.says("tried(lambda: socket.getaddrinfo('example.com', 80))", timeout_s=30).value == 0


def test_no_raw_packets_are_sent(cell):  # 17
    code = "tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(b'x', ('192.0.2.1', 0)))"
    assert cell.says(code).value == 0


def test_no_abstract_socket_of_the_host_is_reached(cell):  # 18
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{cell.tag}")
        server.listen()
        assert cell.says(f"tried(lambda: socket.socket(socket.AF_UNIX).connect('\\0{cell.tag}'))").value == 0


def test_no_file_of_a_socket_outside_is_reached(cell, short):  # 18
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "s"))
        server.listen()
        code = (
            f"def by_link():\n  (HERE / 'l').symlink_to({str(short / 's')!r}); os.chdir(HERE)\n"
            f"  socket.socket(socket.AF_UNIX).connect('l')\ntried(by_link, lambda: socket.socket(socket.AF_UNIX).connect({str(short / 's')!r}))"
        )
        assert cell.says(code).value == 0


def test_a_swapped_link_does_not_lead_to_a_socket_outside(cell, short):  # 18, 20
    heard = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "s"))
        server.listen()
        server.settimeout(0.1)
        code = f"""
import threading
os.chdir(os.environ['TMPDIR'])
inner = socket.socket(socket.AF_UNIX); inner.bind('mine'); inner.listen(1000)
os.symlink('mine', 'good'); os.symlink({str(short / "s")!r}, 'bad'); os.symlink('mine', 'l')
def swap():
    while True: os.replace('good', 'l'); os.symlink('mine', 'good'); os.replace('bad', 'l'); os.symlink({str(short / "s")!r}, 'bad')
threading.Thread(target=swap, daemon=True).start()
end = time.monotonic() + 0.6
while time.monotonic() < end:
    with socket.socket(socket.AF_UNIX) as s:
        try: s.connect('l')
        except OSError: continue
    inner.accept()[0].close()
result(0)
"""

        def listen():
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                try:
                    heard.append(server.accept()[0].close())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        outcome = cell.says(code)
        thread.join()
    assert outcome.value == 0
    assert heard == []


def test_a_socket_of_the_job_itself_works(cell):
    code = (
        "os.chdir(os.environ['TMPDIR'])\ns = socket.socket(socket.AF_UNIX); s.bind('own'); s.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('own'); c.send(b'hello'); result(len(s.accept()[0].recv(9)))"
    )
    assert cell.says(code).value == 5


def test_there_is_no_io_uring_that_makes_sockets(cell):  # 25
    if cell.sandbox.name == "bwrap":
        pytest.skip("bwrap lets io_uring be: a socket made so has no network to reach")
    code = "import ctypes\nresult(float(ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) >= 0))"
    assert cell.says(code).value == 0
