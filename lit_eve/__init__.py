"""Vision-language models that see without a vision encoder: declared, trained, compared."""

__version__ = "0.1.0"
