"""The edges of the colour jobs: wire <-> bus.

intake         Chromebooks hand in jobs
combinators    combinators get jobs and answer
link           the connection to one combinator
"""
