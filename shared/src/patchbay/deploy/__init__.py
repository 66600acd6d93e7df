"""A unit as a service of a machine: what systemd or supervisord is told of it.

systemd_service     the template ``patchbay@.service``, and where its files go
supervisor_section  a section for a supervisord that is there already
"""
