"""Shared code of the four questions.

Importing it, before Keras, makes Keras run on TensorFlow whatever `keras.json` or
`KERAS_BACKEND` say, and keeps TensorFlow's notes about the machine off the screen.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
