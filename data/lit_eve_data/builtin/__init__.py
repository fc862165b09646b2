"""What is made from nothing but a seed: scenes of handwriting, crops of photographs."""
