"""Experiments: which arm a request falls to, what users did with the answers, and what follows from it.

In: experiments of the settings, answers and feedback. Out: arms, interleaved rankings, reports. Knows no model.

================  ===============================================================================
``assignment``    a key's arm, by hash alone
``interleaving``  one ranking of two, by team draft
``statistics``    sample ratio, tests that may be looked at every day, agreement of rankings
``store``         answers, feedback and controls, written by one thread
``database``      where these lie: SQLite, or PostgreSQL (extra ``postgres``)
``analysis``      what the stored answers say, day by day
``report``        the same for a person: tables, and plots as SVG
================  ===============================================================================
"""
