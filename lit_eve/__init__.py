"""Vision-language models that see without a vision encoder: declared, trained, compared."""

from lit_eve.hub.registration import install

__version__ = "0.1.0"

install()  # so that Transformers opens the models that `lit-eve export` writes
