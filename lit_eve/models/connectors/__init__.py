"""From a vision encoder's features to tokens of the decoder's width: one file per family."""
