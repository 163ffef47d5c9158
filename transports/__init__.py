"""Transports: implementations of ``zmesh.transport.Transport``, and the front door before one of them.

Nothing is imported here, so that the simulator never loads ZeroMQ.
"""
