"""Has models compiled with options that suit a test: few steps, and no long wait."""

import keras

EAGER = {"run_eagerly": True, "jit_compile": False}
NO_XLA = {"jit_compile": False}


def compile_all(monkeypatch, **options):
    """Adds options to every later `compile`, whatever it is called with.

    Args:
        monkeypatch: the fixture of pytest.
        **options: arguments of `keras.Model.compile`, such as `EAGER`.
    """
    # Where it is defined: Keras takes one that a subclass has for a custom one.
    trainer = next(base for base in keras.Model.__mro__ if "compile" in vars(base))
    compile_model = trainer.compile

    def compile_so(self, *args, **given):
        compile_model(self, *args, **{**given, **options})

    monkeypatch.setattr(trainer, "compile", compile_so)
