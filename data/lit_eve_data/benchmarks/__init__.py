"""Public benchmarks as their authors publish them: local files to questions."""
