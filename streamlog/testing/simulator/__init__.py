"""Whole clusters, clients and workers in one process, from one seed (docs/internals/simulator.md)."""
