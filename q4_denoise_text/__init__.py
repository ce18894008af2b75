import common  # noqa: F401, before Keras: see there
