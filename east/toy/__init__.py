"""Arithmetic problems and a tiny model: stand-ins for a laptop."""
