"""How fast a model runs, all its forms by turns in one run, as ratios: `kzoo bench`.

subject: one form of a model that is timed: a file in a precision, a Keras function, a matrix product.
turn: one measurement of each subject, one after the other, so that slow phases of a machine hit all alike.
round: a turn of all; `--rounds` says how many.
timing: what was measured of a subject: its times, and their ratios to those of others.
ceiling: a float32 matrix product for as many multiply-adds.
rival: a file or library that the files are compared with: `--against`.
report: all that a run of `kzoo bench` measured: `bench.json`, and its page with a chart.
"""
