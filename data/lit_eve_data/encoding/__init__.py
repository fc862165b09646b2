"""What a model reads of a sample: token ids of its words, patches of its pictures."""
