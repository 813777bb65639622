"""Speed of the engines, measured: training, decoding, data; tables in the reference's form.

A run measures arms (an engine, a precision, a number of processes), each in processes of its own,
in which memory and threads are clean; an arm has a row for each batch size. `sweep` plans and
collects, `crew` starts an arm's processes, `worker` and `session` are what runs in them, the loads
(`training_load`, `decoding_load`, `data_load`, `transformers_load`) are what is timed.
"""
