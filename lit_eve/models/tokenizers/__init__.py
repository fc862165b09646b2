"""Image tokenizers: encoders, quantizers and decoders; images to grids of codes and back."""
