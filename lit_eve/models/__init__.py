"""Networks: they know torch and Transformers, never Lightning, files or the schema."""
