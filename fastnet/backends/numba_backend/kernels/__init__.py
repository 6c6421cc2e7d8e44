"""Compiled functions. Only a process that compiles any imports this folder, and with it Numba."""
