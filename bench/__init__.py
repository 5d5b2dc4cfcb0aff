"""`make bench`: this service and the Autosubmit API 4.2.0 side by side, on this machine, over loopback only.

stage.py      the account with a stub `autosubmit`, sshd, and both servers
measure.py    alternating calls, medians, requests per second
cases.py      what is measured, one function each
report.py     docs/benchmarks.md
fill.py       one million past runs        cycle.py   one look at all active runs (both run in the server's environment)
"""
