"""Measure the speed of training, decoding and data loading; tables in the reference's format.

A benchmark measures cases (an engine, a precision, a number of processes), each in new processes,
so that memory and threads start in the same state. A case has a row for each batch size. `cases`
plans the cases, `run` starts their `processes` and asks each of these to time its load (`session`
with `loads` or `data_load`), and `tables` formats the rows.
"""
