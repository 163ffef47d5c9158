"""Transports: implementations of ``zmesh.transport.Transport``, and the front door for one of them.

Nothing is imported here, so the simulator never loads ZeroMQ.
"""
