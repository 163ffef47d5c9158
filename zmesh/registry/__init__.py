"""Who is a validator: the port (``port.py``) and what stands behind it."""
