"""Arithmetic problems and a tiny model, with which the whole method runs on a laptop."""
