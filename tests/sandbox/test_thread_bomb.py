"""A bomb of threads takes the machine's numbers of processes as one of forks does."""

from cells import SMALL

BOMB = """
import threading
threading.stack_size(65_536)
event = threading.Event()
for _ in range(2500): threading.Thread(target=event.wait, daemon=True).start()
time.sleep(30)
result(1)
"""


def test_a_bomb_of_threads_is_ended(cell):  # 1
    outcome = cell.says(BOMB, limits=SMALL)
    assert (outcome.status, outcome.value) == ("failed", None)
    assert "limits.processes=60" in outcome.message
