"""`make bench`: compare this service with the Autosubmit API 4.2.0 on this machine, over loopback only.

stage.py      the account with a stub `autosubmit`, sshd, and both servers
measure.py    alternating calls, medians, requests per second
cases.py      the measurements, one function each
report.py     docs/benchmarks.md
fill.py       one million past runs        cycle.py   one watch cycle of all active runs (both run in the server's
              environment)
migrations.py  each migration of large tables on PostgreSQL while others write
"""
