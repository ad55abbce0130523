"""Meshes, finite element spaces and their evaluation operators."""
