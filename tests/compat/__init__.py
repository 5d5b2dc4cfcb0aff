"""The same requests to this service and to the Autosubmit API 4.2.0 (`make compat`).

reference.py    the Autosubmit API as a server        client.py   exact requests over a kept connection
side.py         one of the two services, with its account and sshd
cases.py        the requests that today's GUI sends, and requests that must fail
compare.py      the definition of a difference
differences.py  the intended differences, each with its reason
table.py        the generated part of docs/compatibility.md
"""
