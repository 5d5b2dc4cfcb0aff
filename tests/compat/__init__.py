"""The same requests to this service and to the Autosubmit API 4.2.0 (`make compat`).

reference.py    the Autosubmit API as a server        client.py   requests as they are, over a kept connection
side.py         one of the two, with what is around it
cases.py        the requests: what today's GUI sends, and what it must get when something is wrong
compare.py      what counts as a difference
differences.py  those that are wanted, each with its reason
table.py        the generated part of docs/compatibility.md
"""
