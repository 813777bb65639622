"""Speed of the engines, measured: training, decoding, data; tables in the reference's form.

A benchmark measures cases (an engine, a precision, a number of processes), each in processes of its
own, whose memory and threads are clean; a case has a row for each batch size. `cases` plans them,
`run` starts their `processes` and asks the `session` in each to time a load (`loads`, `data_load`,
`transformers_load`), and `tables` shows the rows.
"""
