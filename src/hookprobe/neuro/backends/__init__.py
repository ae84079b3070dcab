"""The same integers three times: plain Python, numpy int64 and numba, bit for bit equal."""
