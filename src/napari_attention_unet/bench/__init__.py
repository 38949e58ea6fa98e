"""Benchmarks: this package against sliding windows, in time, memory and exactness.

`cases` lists what is measured and what is aimed at; each way of measuring has a file of its own.
Everything that a figure depends on is in the result: machine, versions, sizes, what was timed.
"""
