"""A soak: the whole service under mixed load and faults, checked against what really happened (docs/testing.md).

journal.py   what the machines themselves recorded: each start and end of a command
site.py      two nodes behind nginx, PostgreSQL, sshds, a receiver of webhooks
load.py      the users, and every request with its answer
faults.py    the schedule of the faults
growth.py    samples of memory, descriptors, connections and tables
checks.py    the comparison of rows, messages, audit records and answers with the journal
"""
