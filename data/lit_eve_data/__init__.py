"""Feeds: from anyone's files to packed batches. A leaf: knows no model and no task.

batches.py  what a task is handed: the contract with `lit_eve.tasks`
disk/       a prepared dataset as it lies there: records, manifest, reading
builtin/    made from nothing but a seed: scenes, photo crops
sources/    what can be prepared, a file for each kind; what is refused
benchmarks/ public benchmarks' own files to questions
preparing/  sources to datasets, once: verified, whole or not at all
encoding/   words to token ids, pictures to patches
packing/    which samples come when: plans, pure functions of lengths and seed
loading/    batches of a plan, workers, the position a run resumes from
viewing/    prepared data for people
"""
