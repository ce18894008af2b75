"""What the tests of question 3 run under: one thread and small networks."""

import pytest
import threadpoolctl

from q3_inverse_ae import inverse_ae
from tests.q3_inverse_ae.oracles import WIDTHS


@pytest.fixture(autouse=True)
def small_and_on_one_thread(monkeypatch):
    monkeypatch.setattr(inverse_ae, "WIDTHS", WIDTHS)
    # Those of OpenBLAS wait for each other where another process has a core.
    with threadpoolctl.threadpool_limits(1):
        yield
