"""What the tests of question 3 run under."""

import pytest
import threadpoolctl


@pytest.fixture(autouse=True)
def one_thread():
    # Those of OpenBLAS wait for each other where another process has a core.
    with threadpoolctl.threadpool_limits(1):
        yield
